"""What a plan in which nothing fits says to people."""

from __future__ import annotations

from argosy.api.plans import no_offer
from argosy.model.offer import Plan, Rejection
from argosy.model.resources import Infra, Resources
from argosy.model.task import Task


def rejected(*rows: tuple[str, str, str]) -> Plan:
    found = tuple(Rejection(provider=name, code=code, text=text) for name, code, text in rows)
    return Plan(num_nodes=1, choices=(), rejected=found)


def test_places_that_were_not_asked_for_are_told_only_where_nothing_else_is() -> None:
    here = Task(run="x", resources=(Resources(infra=Infra(provider="local")),))
    others = [(name, "infra", "`infra` asks for local") for name in ("aws", "gcp")]
    lines = no_offer(here, rejected(("local", "accelerator", "has no accelerator"), *others)).details
    assert lines == ("local  –  accelerator  has no accelerator",)
    assert [line.split()[0] for line in no_offer(here, rejected(*others)).details] == ["aws", "gcp"]
