"""Keys of mounts are renewed before they end, for as long as what is mounted may be used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from argosy.controllers.folder_links import FolderLinks, Mounted
from argosy.controllers.mount_keys import KeyRenewals
from argosy.controllers.mount_kinds import MountKinds, OfFolder, OfStore
from argosy.infra.agent_port import MountOrder
from argosy.infra.border import Transient
from argosy.infra.buckets import MountKeys
from argosy.model.phases import AttemptPhase, NodePhase
from argosy.model.rows import Node, Workload
from argosy.model.task import StorageMount
from argosy.testing.builders import a_job, a_node, a_task, an_attempt
from argosy.testing.virtual_time import FixedClock

HOUR_S = 3600
MOUNT = StorageMount(target="/data", sources=("s3://b/x",), mode="MOUNT")


class Rig:
    """One job on one node; `told` is what people read, `ordered` what the agent was told."""

    def __init__(self, *, host_id: str | None = None, **keys: object) -> None:
        self.clock = FixedClock(1_000_000_000)
        self.job = a_job(task=a_task(storage_mounts=(MOUNT,)), host_id=host_id, managed=host_id is None)
        self.node = a_node(id="nod-0")
        self.attempt = an_attempt(workload_id=self.job.id, phase=AttemptPhase.RUNNING)
        self.ordered: list[MountOrder] = []
        self.told: list[str] = []
        self.is_free, self.broken = True, ""
        self.keys = keys
        links = FolderLinks(self, lambda: None)  # type: ignore[arg-type]
        kinds = MountKinds(OfStore(None), OfFolder(None, links))  # type: ignore[arg-type]
        self.renewals = KeyRenewals(self, self.clock, self.order, self.tell, kinds, links.close)  # type: ignore[arg-type]

    @property
    def now_s(self) -> float:
        return self.clock.now_ms() / 1000

    async def get(self, node: Node) -> Any:
        return self

    async def mount(self, order: MountOrder) -> bool:
        self.ordered.append(order)
        return self.is_free

    async def order(self, what: Mounted) -> tuple[MountOrder, MountKeys]:
        if self.broken:
            raise Transient(self.broken)
        ends_s = self.now_s + HOUR_S
        told = {"settings": {}, "path": "b/x", "expires_s": ends_s, **self.keys}
        keys = MountKeys(**told)  # type: ignore[arg-type]
        order = MountOrder(target="/data", path="b/x", settings={}, expires_s=ends_s, renews=True)
        return order, keys

    async def tell(self, job: Workload, text: str) -> None:
        self.told.append(text)

    def rows(self, *, nodes: Sequence[Node] | None = None, runs: bool = True) -> Any:
        nodes = [self.node] if nodes is None else nodes
        return SimpleNamespace(
            workloads={self.job.id: self.job},
            attempts={self.attempt.id: self.attempt} if runs else {},
            nodes={node.id: node for node in nodes},
        )

    def look(self, after_s: float = 0, **rows: Any) -> int:
        """How many orders there are after a look at the rows, so much later."""
        self.clock.advance(after_s)
        asyncio.run(self.renewals.renew(self.rows(**rows)))
        return len(self.ordered)


def test_a_server_that_starts_anew_renews_what_runs_at_once_and_then_in_time() -> None:
    rig = Rig()
    assert rig.look() == 1
    assert rig.look(HOUR_S / 2 - 1) == 1
    assert rig.look(1) == 2
    assert rig.told == []


@pytest.mark.parametrize(
    ("host_id", "runs", "stays"), [(None, True, True), (None, False, False), ("clu-0", False, True)]
)
def test_keys_are_renewed_as_long_as_the_mount_may_be_used(
    host_id: str | None, runs: bool, stays: bool
) -> None:
    """What a cluster's job has mounted stays when the job has ended: people look at it."""
    rig = Rig(host_id=host_id)
    rig.look()
    assert rig.look(HOUR_S, runs=runs) == (2 if stays else 1)
    gone = a_node(id="nod-0", phase=NodePhase.GONE)
    assert rig.look(HOUR_S, runs=False, nodes=[gone]) == (2 if stays else 1)


def test_keys_that_never_end_are_not_renewed() -> None:
    rig = Rig(expires_s=0.0)
    assert rig.look() == rig.look(30 * 24 * HOUR_S) == 0


def test_what_cannot_be_renewed_is_tried_again_and_told_once_before_it_ends() -> None:
    rig = Rig()
    rig.look()
    rig.broken = "the token service does not answer"
    rig.look(HOUR_S / 2)
    assert rig.told == []
    for _ in range(3):
        rig.look(HOUR_S / 2 - 240 if not rig.told else 20)
    assert rig.told == ["the keys of /data end soon and are not renewed: the token service does not answer"]
    rig.broken = ""
    assert rig.look(20) == 2
    rig.is_free = False
    rig.look(HOUR_S - 240)
    assert rig.told[1] == (
        "the keys of /data end soon and are not renewed: somebody is in the folder, and its store needs a "
        "new mount for new keys"
    )
