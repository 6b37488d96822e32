"""A walk over every row of the API: who brings no good credential gets nowhere, no secret becomes text."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from asking import Door
from site_of_people import Site

from argosy.api.endpoint import PREFIX
from argosy.api.endpoints import ENDPOINTS
from argosy.api.every import DECLARED
from argosy.model.access import OPEN
from argosy.model.audit import FIRST, Act, chained, first_break
from argosy.model.errors import ArgosyError
from argosy.server.door_rules import METHODS, check_method

CREDENTIALS = {
    "none": [],
    "a wrong token": [(b"authorization", b"Bearer argosy_pat_wrong")],
    "a token of another form": [(b"authorization", b"Bearer x")],
    "another way": [(b"authorization", b"Basic cm9vdDpyb290")],
    "a made-up cookie": [
        *((b"cookie", b"__Host-argosy=made-up"), (b"origin", b"http://localhost:1")),
        *((b"host", b"localhost:1"), (b"x-argosy-api", b"1")),
    ],
    "a user named by a field": [(b"x-argosy-user", b"owner"), (b"x-forwarded-user", b"owner")],
}


def test_every_row_asks_who_it_is(site: Site) -> None:
    """Over TCP: 401 for every row that is not open to everybody, whatever else the request says."""
    door = Door.__new__(Door)
    door.server = site

    async def walk() -> list[str]:
        passed = []
        for endpoint in ENDPOINTS:
            path = PREFIX + endpoint.path
            for name in endpoint.path_names:
                path = path.replace(f"{{{name}}}", "x")
            for what, fields in CREDENTIALS.items():
                status, _ = await door.over_tcp(endpoint.method, path, fields, b"{}")
                if (status != 401) is not (endpoint.permission == OPEN):
                    passed.append(f"{endpoint.name} with {what}: {status}")
        for path in ("/v1/nothing", "/v1/nothing/else", "/v2/jobs"):
            status, _ = await door.over_tcp("GET", path, [], b"{}")
            assert status == 401, "nor does it tell what there is"
        return passed

    found = site.do(walk())
    assert [each for each in found if ": 401" not in each] == []
    assert {each.partition(" ")[0] for each in found} <= {e.name for e in ENDPOINTS if e.permission == OPEN}


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "", "X" * 99])
def test_methods_that_are_none(method: str) -> None:
    assert method not in METHODS
    with pytest.raises(ArgosyError) as caught:
        check_method(method)
    assert caught.value.code == "wrong-method"


#: Names of fields that carry secrets. `code` of an error and of an offer are none.
_CODES = ("Code", "Open", "Device", "Login", "SecondFactor")
_SECRETS = ("password", "old", "secret", "token", "value", "proof", "key")


def _secret_fields() -> list[tuple[type[msgspec.Struct], str]]:
    kinds = {each.request for each in DECLARED} | {each.reply for each in DECLARED}
    return [
        (kind, field.name)
        for kind in sorted((each for each in kinds if each is not None), key=lambda each: each.__name__)
        for field in msgspec.structs.fields(kind)
        if field.name in _SECRETS or (field.name == "code" and kind.__name__.startswith(_CODES))
        if field.type is str
    ]


def test_no_secret_is_part_of_a_text() -> None:
    """A request or a reply that ends in a log, an error or a dump says nothing of what it carries."""
    told = []
    for kind, name in _secret_fields():
        made = msgspec.structs.replace(_empty(kind), **{name: "s3cret-marker"})
        if "s3cret-marker" in repr(made) and not _is_idempotency_key(kind, name):
            told.append(f"{name} of {kind.__name__}")
    assert told == []
    assert len(_secret_fields()) >= 15


def _is_idempotency_key(kind: type[msgspec.Struct], name: str) -> bool:
    """Every request that makes something has one: random, good for nothing else."""
    return name == "key" and kind.__name__.endswith("Request") and kind.__name__ != "StoreKeyRequest"


def _empty(kind: type[msgspec.Struct]) -> msgspec.Struct:
    """With the smallest values."""
    values = {field.name: _small(field.type) for field in msgspec.structs.fields(kind) if field.required}
    return kind(**values)


def _small(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _empty(hint)
    return {str: "", int: 0, bool: False, float: 0.0}.get(hint, ())


# -- the chain of the audit log ---------------------------------------------------------------------


def _chain(count: int) -> list[Any]:
    found, prev = [], FIRST
    for seq in range(1, count + 1):
        found.append(chained(Act(at_ms=seq, who="ann", via="token", action="down"), seq, prev))
        prev = found[-1].hash
    return found


def test_a_dropped_row_is_named() -> None:
    rows = _chain(3)
    assert first_break([rows[0], rows[2]], seq=0, prev=FIRST) == "row 2 is missing: row 3 follows row 1"


def test_a_row_that_follows_another_is_named() -> None:
    """Somebody wrote a row, and all behind it, anew."""
    rows = _chain(3)
    other = chained(Act(at_ms=9, who="eve", via="token", action="down"), 1, FIRST)
    said = first_break([other, *rows[1:]], seq=0, prev=FIRST)
    assert said == "row 2 does not follow row 1 as it is now"
    again = msgspec.structs.replace(rows[1], prev=other.hash)
    assert first_break([other, again], seq=0, prev=FIRST) == "row 2 was changed"
