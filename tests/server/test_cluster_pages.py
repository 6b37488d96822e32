"""Pages that programs of clusters serve, at host names of their own: which cluster is meant, and who may."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from test_app_attacks import a_session

from argosy.identity.roles import BUILT_IN
from argosy.model.access import NOBODY, Caller
from argosy.server.apps.live import LiveApps
from argosy.server.apps.rules import Place
from argosy.store import Snapshot
from argosy.testing.builders import a_cluster


def the_apps() -> LiveApps:
    return LiveApps(*cast(Any, (None, None, None, None)))  # none of them is asked


def a_caller(role: str, project: str) -> Caller:
    grants = (BUILT_IN[role].over(frozenset((project,))),)
    return Caller(id="usr-ann", name="ann", via="session", credential="c", grants=grants)


def test_a_host_name_means_a_port_of_a_cluster_and_never_an_app() -> None:
    cluster = a_cluster(name="ray")
    rows = Snapshot.of([cluster, a_session("one")])
    apps = the_apps()
    assert apps.find(rows, Place("8265", "ray")) == cluster
    assert apps.find(rows, Place("8265", cluster.id)) == cluster
    assert apps.find(rows, Place("lab", "ray")) is None
    assert apps.find(rows, Place("8265", "nobody")) is None


def test_a_session_of_the_same_name_comes_first() -> None:
    session = a_session("one")
    rows = Snapshot.of([a_cluster(name="one"), session])
    assert the_apps().find(rows, Place("8265", "one")) == session


@pytest.mark.parametrize(
    ("caller", "allowed"),
    [
        (a_caller("member", "default"), True),
        (a_caller("viewer", "default"), False),
        (a_caller("member", "vision"), False),
        (NOBODY, False),
    ],
)
def test_who_may_not_enter_a_cluster_opens_no_page_of_it(caller: Caller, allowed: bool) -> None:
    cluster = msgspec.structs.replace(a_cluster(name="ray"), user="ann")
    assert the_apps().may(caller, cluster) is allowed
