"""Keys of services: made, listed, told apart, and what the gateway hears of them."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from argosy.api.service_keys import ServiceKeyRequest
from argosy.controllers.service.routes import key_uses, model_keys, route_of, routes_of
from argosy.gateway.limits import key_row
from argosy.model.access import OWNER
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import Revision, ServiceSpec, ServiceStatus, service_spec
from argosy.model.routes import KeyCounters, ServiceCounters
from argosy.model.rows import Workload
from argosy.model.service_keys import AccessKey, KeyUse, ModelKey, Prices
from argosy.model.serving import Serving
from argosy.model.task import Task
from argosy.server.service_keys import (
    access_of,
    added_uses,
    model_key_uses,
    view_keys,
    with_key,
    with_prices,
    without_key,
)
from argosy.server.service_views import find_service, members_of
from argosy.store.snapshot import Snapshot

NOW = 1_700_000_000_000


def a_service() -> Workload:
    spec = ServiceSpec(revisions=(Revision(number=1, digest="d", task=Task(run="x")),), wanted=1)
    return Workload(
        id="svc-1", kind="service", name="chat", spec=spec, status=ServiceStatus(), created_ms=NOW
    )


def sha(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def test_a_key_and_its_limits_reach_the_gateway_without_the_secret() -> None:
    asked = ServiceKeyRequest(
        name=" ann ", requests_per_minute=60, tokens_per_minute=9000, max_concurrency=4, expires_s=3600
    )
    row = with_key(a_service(), asked, sha("s3cret"), NOW)
    [key] = route_of(row).keys
    assert (key.id, key.sha256, key.requests_per_minute) == ("ann", sha("s3cret"), 60)
    assert (key.tokens_per_minute, key.max_concurrency, key.expires_at_ms) == (9000, 4, NOW + 3_600_000)
    assert b"s3cret" not in msgspec.json.encode(row)
    [shown] = view_keys(service_spec(row).keys, {})
    assert shown.name == "ann" and sha("s3cret").encode() not in msgspec.json.encode(shown)


def test_a_key_of_the_same_name_takes_the_place_of_the_older_one() -> None:
    row = with_key(a_service(), ServiceKeyRequest(name="ann"), sha("old"), NOW)
    row = with_key(row, ServiceKeyRequest(name="bob"), sha("other"), NOW)
    row = with_key(row, ServiceKeyRequest(name="ann"), sha("new"), NOW + 1)
    assert {key.name: key.sha256 for key in service_spec(row).keys} == {
        "ann": sha("new"),
        "bob": sha("other"),
    }


@pytest.mark.parametrize(
    ("keys", "public", "is_local", "access", "is_open"),
    [
        (False, False, True, "machine", True),
        (False, False, False, "nobody", False),
        (False, True, False, "public", True),
        (True, True, True, "keys", False),
        (True, False, False, "keys", False),
    ],
)
def test_who_may_send_requests(keys: bool, public: bool, is_local: bool, access: str, is_open: bool) -> None:
    row = a_service()
    row = msgspec.structs.replace(row, spec=msgspec.structs.replace(service_spec(row), public=public))
    if keys:
        row = with_key(row, ServiceKeyRequest(name="ann"), sha("s"), NOW)
    assert access_of(row, is_local=is_local) == access
    route = route_of(row)
    assert (not route.keys and (route.public or is_local)) is is_open, "as the gateway asks"


def test_what_is_no_key_is_refused_in_words() -> None:
    with pytest.raises(ArgosyError, match="is no name for a key"):
        with_key(a_service(), ServiceKeyRequest(name=" "), sha("s"), NOW)
    with pytest.raises(ArgosyError, match="a limit of a key is a number of at least 0"):
        with_key(a_service(), ServiceKeyRequest(name="ann", max_concurrency=-1), sha("s"), NOW)
    with pytest.raises(ArgosyError, match="`chat` has no key `ann`") as caught:
        without_key(a_service(), "ann")
    assert caught.value.hint == "`argosy serve key chat` lists its keys"


def test_a_removed_key_is_gone() -> None:
    row = with_key(a_service(), ServiceKeyRequest(name="ann"), sha("s"), NOW)
    assert route_of(without_key(row, "ann")).keys == ()


def priced(row: Workload) -> Workload:
    return with_prices(row, Prices(input=250_000, output=2_000_000))


def test_a_budget_and_prices_reach_the_gateway() -> None:
    asked = ServiceKeyRequest(name="ann", budget_micro_usd=20_000_000, period="day")
    row = with_key(priced(a_service()), asked, sha("s"), NOW)
    route = route_of(row)
    assert (route.keys[0].budget_micro_usd, route.keys[0].period) == (20_000_000, "day")
    assert route.prices == Prices(input=250_000, output=2_000_000)
    used = {"ann": KeyUse(requests=3, input_tokens=5, spent_micro_usd=1_500_000)}
    [shown] = view_keys(service_spec(row).keys, used)
    assert (shown.requests, shown.spent_micro_usd, shown.budget_micro_usd) == (3, 1_500_000, 20_000_000)


def test_a_budget_without_prices_is_refused() -> None:
    asked = ServiceKeyRequest(name="ann", budget_micro_usd=1)
    with pytest.raises(ArgosyError) as caught:
        with_key(a_service(), asked, sha("s"), NOW)
    assert caught.value.what == "`chat` has no prices, so the budget of `ann` would never be spent"
    assert caught.value.hint == (
        "say them first: `argosy serve price chat --input 0.25 --output 2` ($ a million)"
    )
    row = with_key(priced(a_service()), asked, sha("s"), NOW)
    with pytest.raises(ArgosyError, match="the budget of `ann` would never be spent"):
        with_prices(row, Prices())
    with pytest.raises(ArgosyError, match="a price is from"):
        with_prices(row, Prices(input=-1))
    with pytest.raises(ArgosyError, match="is no name for a key"):
        with_key(row, ServiceKeyRequest(name="models/ann"), sha("s"), NOW)


def a_model(name: str, project: str = "default", public: bool = False) -> Workload:
    task = Task(run="x", service=Serving(models=(name,)))
    spec = ServiceSpec(revisions=(Revision(number=1, digest="d", task=task),), wanted=1, public=public)
    return Workload(
        id=f"svc-{project}-{name}",
        kind="service",
        name=name,
        project=project,
        spec=spec,
        status=ServiceStatus(),
        created_ms=NOW,
    )


def test_a_key_of_all_models_of_a_project_is_one_with_one_limit() -> None:
    key = AccessKey(name="ann", sha256=sha("s"), budget_micro_usd=5)
    entry = ModelKey(id="mky-1", created_ms=NOW, project="default", key=key)
    mine = [a_model("tiny"), a_model("huge"), a_service(), a_model("open", public=True), a_model("far", "x")]
    rows = Snapshot.of([*mine, entry])
    routes = {route.name: route for route in routes_of(mine, model_keys(rows, mine))}
    assert [route.name for route in routes.values() if route.keys] == ["huge", "tiny"]
    [tiny], [huge] = routes["tiny"].keys, routes["huge"].keys
    assert tiny == huge and (tiny.id, tiny.scope) == ("models/ann", "project/default")
    assert key_row(routes["tiny"].id, tiny) == key_row(routes["huge"].id, huge)
    assert access_of(mine[0], is_local=True, has_model_keys=True) == "keys"
    assert access_of(mine[3], is_local=True, has_model_keys=True) == "public"
    spent = [{"models/ann": KeyUse(requests=1, spent_micro_usd=5)}, {"models/ann": KeyUse(requests=2)}]
    assert model_key_uses(spent) == {"ann": KeyUse(requests=3, spent_micro_usd=5)}
    assert added_uses([{"a": KeyUse(spent_micro_usd=5)}] * 2) == {"a": KeyUse(spent_micro_usd=10)}


def test_what_gateways_counted_of_a_key_is_told_by_its_name() -> None:
    told = KeyCounters(id="ann", requests=2, output_tokens=7, spent_micro_usd=9)
    counted = ServiceCounters(id="svc-1", keys=[told, KeyCounters(id="unused")])
    assert key_uses(counted) == {"ann": KeyUse(requests=2, output_tokens=7, spent_micro_usd=9)}


def test_who_names_the_endpoint_of_several_is_told_their_names() -> None:
    def member(name: str) -> Workload:
        row = a_model(name)
        first = service_spec(row).revisions[0]
        serving = msgspec.structs.replace(first.serving, endpoint="all")
        first = msgspec.structs.replace(first, task=msgspec.structs.replace(first.task, service=serving))
        return msgspec.structs.replace(
            row, spec=msgspec.structs.replace(service_spec(row), revisions=(first,))
        )

    rows = Snapshot.of([member("tiny"), member("huge")])
    owner = msgspec.structs.replace(OWNER, asks="services.write")
    assert find_service(rows, "tiny", owner).name == "tiny"
    assert len(members_of(rows, "all", owner)) == 2, "a key is made for all of them"
    with pytest.raises(ArgosyError) as caught:  # one number of replicas cannot be meant for all
        find_service(rows, "all", owner)
    assert caught.value.what == "`all` is the endpoint of several services"
    assert caught.value.hint == "name one of them: huge, tiny"
