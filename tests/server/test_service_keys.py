"""Keys of services: made, listed, told apart, and what the gateway hears of them."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from argosy.api.services import ServiceKeyRequest
from argosy.controllers.service.routes import route_of
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import Revision, ServiceSpec, ServiceStatus, service_spec
from argosy.model.rows import Workload
from argosy.model.task import Task
from argosy.server.service_keys import access_of, view_keys, with_key, without_key

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
    [shown] = view_keys(row)
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
