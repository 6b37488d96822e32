"""One context: how the pods of a claim are made, ended and reached.

The API server is the only memory of what there is. A claim's pods are called `<claim>-<index>`, so making one
twice is refused by the server; all else that is made belongs to the first pod and goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.mux import Carrier
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.ids import Clock
from argosy.model.rows import Claim
from argosy.providers.kubernetes import pods
from argosy.providers.kubernetes.api import Api
from argosy.providers.kubernetes.capacity import Capacities
from argosy.providers.kubernetes.discovery import Discovery
from argosy.providers.kubernetes.making import Making
from argosy.providers.kubernetes.objects import Event, Pod
from argosy.providers.kubernetes.pods import CONTAINER, Order
from argosy.providers.kubernetes.states import claim_of, count_of, fact_of, refusal_of, unschedulable_text
from argosy.providers.kubernetes.watching import Pods
from argosy.providers.kubernetes.wishes import ContextConfig, Wishes, wishes_of

_WAIT_S: Final = 60  # so long pods may find no node, where nothing is said
_EVENTS_S: Final = 10.0
_GROW_S: Final = 900  # and so long where an autoscaler may make one


class Cluster:
    """The claims of one context. `zipapp` builds the agent when the first claim needs it. `settle_s`: so long
    `ensure` waits for pods; the next `ensure` goes on waiting."""

    def __init__(
        self,
        api: Api,
        config: ContextConfig,
        *,
        clock: Clock,
        zipapp: Callable[[], Path],
        folder: Path,
        changed: Callable[[], None],
        settle_s: float = 3.0,
    ) -> None:
        self.name, self.api, self.config = api.context.name, api, config
        self.namespace = config.namespace or api.context.namespace
        discovery = Discovery(api)
        self.capacity = Capacities(api, config, clock, discovery)
        self._clock, self._zipapp, self._settle_s = clock, zipapp, settle_s
        self._folder, self._changed = folder, changed
        self._watched: dict[str, Pods] = {}
        self._ordering: dict[str, tuple[str, str]] = {}  # claim → namespace, tag: before its pods are known
        self._hints: dict[str, str] = {}  # claim → what an autoscaler does about it
        self._said: dict[str, tuple[float, tuple[str, bool]]] = {}  # claim → when, what it says
        self._carriers: dict[str, Carrier] = {}  # by `namespace/pod`
        self._making = Making(api, discovery)
        self._opening: set[asyncio.Task[None]] = set()

    # -- claims ----------------------------------------------------------------------------------------------

    async def ensure(self, claim: Claim) -> None:
        """Makes the pods that are missing. Raises a border error, and leaves none then."""
        wishes = wishes_of(claim, self.name, self.config, self.namespace)
        here = self._pods(wishes.namespace, remember=True)
        await here.ready()
        mine, lost = here.of(claim.id), here.lost(claim.id)
        if lost or claim.held_ms or len(mine) >= claim.count:
            return
        ask = self.capacity.ask_of(claim)
        match = await self.capacity.match(ask, claim.count, wishes.autoscaler)
        gang = await self._making.gang(wishes, claim.count)
        agent = self._zipapp()
        order = Order(claim=claim, wishes=wishes, match=match, gang=gang, agent=f"argosy-{agent.stem}")
        self._ordering[claim.id] = (wishes.namespace, claim.tag)
        try:
            await self._making.make(order, here, agent, {pod.metadata.name for pod in mine})
        except border.Transient:
            raise
        except border.BorderError:
            await self._undo(here, claim.id)
            raise
        finally:
            self._ordering.pop(claim.id, None)
            self.capacity.forget()

    async def settle(self, claim: Claim) -> None:
        """Waits a while for the pods of a claim. Raises a border error when waiting is of no use, or has
        lasted as long as the task allows; then nothing of it is left."""
        wishes = wishes_of(claim, self.name, self.config, self.namespace)
        here = self._pods(wishes.namespace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settle_s):
                while (mine := here.of(claim.id)) and not here.lost(claim.id):
                    if fact_of(self.name, mine, ()).state is not ClaimState.PENDING:
                        self._open_up(mine)
                        break
                    if refusal_of(mine):
                        break
                    await here.news()
        mine = here.of(claim.id)
        error = refusal_of(mine) if mine else None
        if error is None and mine:
            error = await self._late(claim, wishes, mine)
        if error is not None:
            await self._undo(here, claim.id)
            raise error

    async def _late(self, claim: Claim, wishes: Wishes, mine: list[Pod]) -> border.BorderError | None:
        """What is wrong with pods for which the scheduler finds no node, when it is time to say so."""
        why = next((text for pod in mine if (text := unschedulable_text(pod))), "")
        self._hints.pop(claim.id, None)
        if not why:
            return None
        hint, grows = await self._autoscaler(mine)
        self._hints[claim.id] = f"; {hint}" if hint else ""
        limit_s = wishes.timeout_s
        if limit_s is None:
            limit_s = _GROW_S if grows or wishes.autoscaler or wishes.dws.enabled else _WAIT_S
            limit_s = -1 if wishes.queue else limit_s
        waited_s = (self._clock.now_ms() - claim.requested_ms) // 1000
        if limit_s < 0 or waited_s <= limit_s:
            return None
        text = f"{self.name} finds no node within {limit_s} s: {why}" + (f"; {hint}" if hint else "")
        return border.OutOfCapacity(
            self.name, text + "; `config.kubernetes.provision_timeout` lets it wait longer"
        )

    async def _autoscaler(self, mine: list[Pod]) -> tuple[str, bool]:
        """What an autoscaler says about pods, and whether it makes nodes for them. Asked now and then."""
        claim_id, now_s = claim_of(mine[0]), self._clock.monotonic_s()
        at_s, said = self._said.get(claim_id, (float("-inf"), ("", False)))
        if now_s - at_s > _EVENTS_S:
            said = await self._ask_autoscaler(mine)
            self._said[claim_id] = (now_s, said)
        return said

    async def _ask_autoscaler(self, mine: list[Pod]) -> tuple[str, bool]:
        space = mine[0].metadata.namespace
        try:
            query = [("fieldSelector", f"involvedObject.name={mine[0].metadata.name}")]
            events, _ = await self.api.items(f"/api/v1/namespaces/{space}/events", into=Event, query=query)
        except border.BorderError:
            return "", False
        for each in reversed(events):
            if each.reason in ("TriggeredScaleUp", "Nominated"):
                return f"the autoscaler makes nodes ({each.message})", True
            if each.reason == "NotTriggerScaleUp":
                return f"the autoscaler makes none ({each.message})", False
        return "", False

    def facts(self, claim_ids: list[str]) -> list[ClaimFact]:
        """From what the watches have told. Raises the border error that keeps pods from being known."""
        found: dict[str, ClaimFact] = {}
        for here in self._watched.values():
            for claim_id in claim_ids or here.claims():
                mine, lost = here.of(claim_id), here.lost(claim_id)
                if mine or lost:
                    found[claim_id] = fact_of(self.name, mine, lost, self._hints.get(claim_id, ""))
        for claim_id, (_, tag) in self._ordering.items():
            if claim_id not in found and (not claim_ids or claim_id in claim_ids):
                found[claim_id] = ClaimFact(claim_id=claim_id, state=ClaimState.PENDING, tag=tag)
        return list(found.values())

    async def ready(self) -> None:
        """Until the pods of all namespaces that were ever used are known. Raises a border error."""
        for namespace in (self.namespace, *self._remembered()):
            self._pods(namespace)
        await asyncio.gather(*(each.ready() for each in self._watched.values()))

    async def release(self, claim_id: str) -> None:
        """Ends the pods of a claim and what was made beside them, and waits until nothing is left."""
        await self.ready()
        for key in [each for each in self._carriers if claim_id in each]:
            await self._carriers.pop(key).close()
        for namespace, here in self._watched.items():
            await self._making.remove(here, claim_id)
            await self._making.remove_beside(namespace, claim_id)
        self.capacity.forget()
        self._hints.pop(claim_id, None)
        self._said.pop(claim_id, None)

    async def reach(self, namespace: str, name: str) -> Channel:
        """A stream to the agent in a pod. Raises Unreachable."""
        here = self._watched.get(namespace)
        pod = here.find(name) if here is not None else None
        if pod is None or pod.status.phase != "Running":
            raise border.Unreachable(f"there is no pod {name} in {self.name}/{namespace} that runs")
        return await self._carrier(namespace, name).open()

    # -- effects ---------------------------------------------------------------------------------------------

    def _pods(self, namespace: str, *, remember: bool = False) -> Pods:
        if namespace not in self._watched:
            self._watched[namespace] = Pods(self.api, namespace, self._changed)
            if remember and namespace != self.namespace:  # another life of this server has to look there, too
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._folder / namespace).touch()
        return self._watched[namespace]

    def _remembered(self) -> list[str]:
        return sorted(each.name for each in self._folder.iterdir()) if self._folder.is_dir() else []

    async def _undo(self, here: Pods, claim_id: str) -> None:
        """A gang that cannot be whole leaves nothing. What cannot be deleted now is at its release."""
        with contextlib.suppress(border.BorderError):
            await self._making.remove(here, claim_id)

    # -- reaching --------------------------------------------------------------------------------------------

    def _carrier(self, namespace: str, name: str) -> Carrier:
        """All streams to one pod go through one exec: each of them is a process there."""
        key = f"{namespace}/{name}"
        if key not in self._carriers:
            command = ("sh", "-c", pods.CONNECT)
            self._carriers[key] = Carrier(lambda: self.api.exec(namespace, name, CONTAINER, command))
        return self._carriers[key]

    def _open_up(self, mine: list[Pod]) -> None:
        """The stream to a pod is opened while its agent starts: whoever needs it finds it there."""
        for pod in mine:
            if pod.status.phase == "Running" and count_of(pod) == len(mine):
                task = asyncio.get_running_loop().create_task(self._opened(pod))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _opened(self, pod: Pod) -> None:
        with contextlib.suppress(border.BorderError):  # whoever needs it tries again, and tells
            (await self._carrier(pod.metadata.namespace, pod.metadata.name).open()).writer.close()

    async def close(self) -> None:
        for each in self._watched.values():
            each.close()
        for carrier in self._carriers.values():
            await carrier.close()
        await self.api.close()
