"""Route tables: what a gateway refuses, and that tables survive the wire."""

from __future__ import annotations

import msgspec
import pytest

from argosy.model.routes import ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute, Shadow, check_table


def _service(**fields: object) -> ServiceRoute:
    return msgspec.convert({"id": "svc-1", "name": "web", **fields}, ServiceRoute)


def test_a_table_survives_the_wire() -> None:
    replica = ReplicaRoute(id="r1", address="10.0.0.1:8000", max_concurrency=4)
    table = RouteTable(
        generation=7, services=(_service(revisions=(RevisionRoute(id="v1", replicas=(replica,)),)),)
    )
    assert msgspec.json.decode(msgspec.json.encode(table), type=RouteTable) == table
    assert check_table(table) == []


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (_service(prefix="s/web"), "does not begin with `/`"),
        (_service(prefix="/s/web/"), "ends with `/`"),
        (_service(revisions=(RevisionRoute(id="v"), RevisionRoute(id="v"))), "the same id"),
        (_service(revisions=(RevisionRoute(id="v", weight=-1),)), "below 0"),
        (_service(shadow=Shadow(revision="v9")), "`v9` is not in the table"),
        *(
            (
                _service(
                    revisions=(RevisionRoute(id="v", replicas=(ReplicaRoute(id="r", address=address),)),)
                ),
                "not HOST:PORT or a path",
            )
            for address in ("", "8000", ":8000", "host:", "host:0", "host:65536", "host:８０")
        ),
    ],
)
def test_what_is_refused(service: ServiceRoute, said: str) -> None:
    assert [said in line for line in check_table(RouteTable(generation=1, services=(service,)))] == [True]


def test_a_host_and_a_prefix_belong_to_one_service() -> None:
    one = _service(hosts=("a.example",), prefix="/s/a")
    two = msgspec.structs.replace(one, id="svc-2", name="other")
    assert check_table(RouteTable(generation=1, services=(one, two))) == [
        "service `other`: its host `a.example` belongs to `web` already",
        "service `other`: its prefix `/s/a` belongs to `web` already",
    ]
