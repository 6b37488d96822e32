"""Whoever is put out is out within two seconds, also of what is open; and on every server that shares the
database."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from site_of_people import Site
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from argosy.model.access import OWNER
from argosy.model.phases import NodePhase, WorkloadPhase
from argosy.testing.builders import a_claim, a_cluster, a_node


def open_terminal(site: Site, token: str) -> object:
    cluster = a_cluster(name="dev", project="vision", user="ann", phase=WorkloadPhase.RUNNING)
    claim = a_claim(workload_id=cluster.id)
    node = a_node(workload_id=cluster.id, claim_id=claim.id, phase=NodePhase.READY)
    site.do(site.store.commit([cluster, claim, node]))
    address = site.address.replace("http://", "ws://")
    return connect(
        f"{address}/v1/clusters/dev/shell",
        additional_headers={"authorization": f"Bearer {token}"},
        compression=None,
    )


def sooner(done: Callable[[], bool], limit_s: float = 10.0) -> float:
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < limit_s
        time.sleep(0.02)
    return time.monotonic() - begun


@pytest.mark.parametrize("how", ["revoke", "disable", "password"])
def test_a_terminal_ends_with_its_credential(site: Site, how: str) -> None:
    site.add_user("ann", "member", "vision")
    signed_in = site.token("ann")
    token = site.ask("POST", "/tokens", {"name": "t"}, token=signed_in).json["secret"]
    with open_terminal(site, token) as terminal:  # type: ignore[attr-defined]
        terminal.send(b"hello")
        assert terminal.recv(timeout=90) == b"HELLO"
        opened = [r.act for r in site.do(site.store.load_acts()) if r.act.action == "shell"]
        assert [(act.who, act.target) for act in opened] == [("ann", "dev")], "written down before it opened"
        if how == "revoke":
            site.ask("DELETE", "/tokens/t", token=signed_in)
        elif how == "disable":
            site.do(site.people.change_user(OWNER, "ann", is_disabled=True))
        else:
            site.do(site.people.set_password(OWNER, "ann", "another long password"))
        with pytest.raises(ConnectionClosed) as closed:
            terminal.recv(timeout=90)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
    sooner(lambda: site.agents.terminals[0].closed)


def test_a_terminal_of_somebody_else_stays(site: Site) -> None:
    site.add_user("ann", "member", "vision")
    site.add_user("bob", "operator", "vision")
    site.add_user("cid", "viewer", "vision")
    token = site.token("bob")
    with open_terminal(site, token) as terminal:  # type: ignore[attr-defined]
        site.do(site.people.change_user(OWNER, "cid", is_disabled=True))
        site.do(site.people.remove_user(OWNER, "ann"))
        terminal.send(b"still here")
        assert terminal.recv(timeout=90) == b"STILL HERE"
