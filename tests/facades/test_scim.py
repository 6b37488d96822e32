"""SCIM over real rows: what identity providers do to accounts and groups, and what they must not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.facades.scim.app import Scim
from argosy.facades.scim.filters import BadFilter, parse_filter
from argosy.facades.scim.patching import BadPatch, patched
from argosy.identity.directory import Directory
from argosy.identity.passwords import Passwords
from argosy.identity.people import People
from argosy.identity.tokens import Credentials
from argosy.model.access import OWNER
from argosy.server.provisioning import Provisioned
from argosy.store import Store
from argosy.testing.virtual_time import FixedClock, SimIds

ROOT = "/scim/v2"


class Answered:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)


class Site:
    """A server's rows and the façade over them."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock, self.ids, self.directory = FixedClock(), SimIds(), Directory()
        url = f"sqlite:///{folder / 'argosy.db'}"
        self.store = self.run(Store.open(url, ids=self.ids, clock=self.clock))
        self.people = People(self.store, self.clock, self.ids, self.directory, Passwords())
        self.credentials = Credentials(self.store, self.clock, self.ids, self.directory)
        self.scim = Scim(Provisioned(self.store, self.clock, self.ids), ROOT)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.store.close())
        self.loop.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
            return {"type": "http.request", "body": data}

        async def send(message: Any) -> None:
            said.append(message)

        plain, _, query = path.partition("?")
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "path": ROOT + plain,
            "query_string": query.encode(),
            "scheme": "https",
            "headers": [(b"host", b"argosy.example"), *given],
        }
        self.run(self.scim(scope, receive, send))
        shown = {key.decode(): value.decode() for key, value in said[0]["headers"]}
        return Answered(said[0]["status"], shown, said[1]["body"])

    def add(self, name: str, **more: Any) -> dict[str, Any]:
        made = self.ask("POST", "/Users", {"userName": name, **more})
        assert made.status == 201, made.body
        return made.json

    def user(self, id: str) -> Any:
        return self.run(self.store.snapshot()).people[id]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": list(operations)}


def test_an_account_from_its_beginning_to_its_end(site: Site) -> None:
    made = site.ask(
        "POST",
        "/Users",
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": "Ann.Arbor@example.com",
            "externalId": "42",
            "name": {"givenName": "Ann", "familyName": "Arbor"},
            "emails": [{"value": "old@example.com"}, {"value": "ann@example.com", "primary": True}],
            "password": "not kept",
        },
    )
    id, shown = made.json["id"], made.json
    assert (made.status, made.headers["location"]) == (201, f"https://argosy.example{ROOT}/Users/{id}")
    assert (shown["displayName"], shown["active"], shown["externalId"]) == ("Ann Arbor", True, "42")
    assert shown["emails"] == [{"value": "ann@example.com"}] and "password" not in shown
    kept = site.user(id)
    assert (kept.name, kept.full_name, kept.password) == ("ann.arbor", "Ann Arbor", "")
    read = site.ask("GET", f"/Users/{id}")
    assert read.json == shown and read.headers["etag"] == shown["meta"]["version"]
    assert site.ask("GET", f"/Users/{id}", if_none_match=read.headers["etag"]).status == 304
    changed = site.ask("PUT", f"/Users/{id}", {"userName": "ann.arbor@example.com", "displayName": "A"})
    assert changed.json["displayName"] == "A" and "emails" not in changed.json, "PUT says all of it"
    late = site.ask("PUT", f"/Users/{id}", {"userName": "x"}, if_match=read.headers["etag"])
    assert late.status == 412 and late.json["detail"] == "it has changed since it was read"
    assert site.ask("DELETE", f"/Users/{id}").status == 204
    for method in ("GET", "PUT", "DELETE"):
        assert site.ask(method, f"/Users/{id}", {"userName": "x"}).status == 404
    again = site.add("ann.arbor@example.com")
    assert site.user(again["id"]).name == "ann.arbor-2", "a name is never given twice"


def test_who_is_put_out_is_out_everywhere(site: Site) -> None:
    for how in ("PATCH", "PUT", "DELETE"):
        made = site.add(f"ben-{how.lower()}")
        token = site.run(site.credentials.add_token(OWNER, name="t", user=made["id"]))
        signed = site.run(site.credentials.sign_in(site.user(made["id"]), method="oidc"))

        def is_in(token: Any = token, signed: Any = signed) -> tuple[bool, bool]:
            rows, now_ms = site.run(site.store.snapshot()), site.clock.now_ms()
            return (
                site.directory.caller_with(rows, token.secret, now_ms) is not None,
                site.directory.caller_with_cookie(rows, signed.secret, now_ms) is not None,
            )

        assert is_in() == (True, True)
        body: Any = {"userName": f"ben-{how.lower()}", "active": False}
        if how == "PATCH":  # as Entra ID writes it
            body = patch({"op": "Replace", "path": "active", "value": "False"})
        assert site.ask(how, f"/Users/{made['id']}", body).status in (200, 204)
        assert is_in() == (False, False)
        if how != "DELETE":
            site.ask("PATCH", f"/Users/{made['id']}", patch({"op": "replace", "value": {"active": True}}))
            assert is_in() == (False, False), "old credentials stay dead"


def test_groups_are_what_roles_are_given_to(site: Site) -> None:
    ann, ben = site.add("ann"), site.add("ben")
    made = site.ask("POST", "/Groups", {"displayName": "research", "members": [{"value": ann["id"]}]})
    id = made.json["id"]
    assert made.status == 201 and [each["value"] for each in made.json["members"]] == [ann["id"]]
    assert site.ask("GET", f"/Users/{ann['id']}").json["groups"][0]["display"] == "research"
    site.run(site.people.add_project(OWNER, name="vision"))
    site.run(site.people.give_role(OWNER, subject="group:research", role="member", project="vision"))

    def roles(name: str) -> list[str]:
        rows = site.run(site.store.snapshot())
        user = rows.entry_called(f"user:{name}")
        return ["vision" for grant in site.directory.grants_of(rows, user) if grant.projects == {"vision"}]

    assert (roles("ann"), roles("ben")) == (["vision"], [])
    more = patch({"op": "add", "path": "members", "value": [{"value": ben["id"]}, {"value": ann["id"]}]})
    assert len(site.ask("PATCH", f"/Groups/{id}", more).json["members"]) == 2
    assert (roles("ann"), roles("ben")) == (["vision"], ["vision"])
    less = patch({"op": "remove", "path": f'members[value eq "{ann["id"]}"]'})
    assert len(site.ask("PATCH", f"/Groups/{id}", less).json["members"]) == 1
    assert (roles("ann"), roles("ben")) == ([], ["vision"])
    site.ask("PATCH", f"/Groups/{id}", patch({"op": "replace", "value": {"displayName": "vision-team"}}))
    assert roles("ben") == ["vision"], "roles follow the new name"
    assert site.ask("DELETE", f"/Groups/{id}").status == 204 and roles("ben") == []
    assert "groups" not in site.ask("GET", f"/Users/{ben['id']}").json


def test_what_people_made_is_not_touched(site: Site) -> None:
    root = site.run(site.people.add_user(OWNER, name="root-ann", email="ann@example.com"))
    assert site.ask("GET", "/Users").json["totalResults"] == 0
    for method, body in (("GET", None), ("PUT", {"userName": "x"}), ("DELETE", None), ("PATCH", patch())):
        assert site.ask(method, f"/Users/{root.id}", body).status == 404
    made = site.ask("POST", "/Groups", {"displayName": "g", "members": [{"value": root.id}]})
    assert (made.status, made.json["detail"]) == (
        403, f"there is no account `{root.id}` of this identity provider"
    )  # fmt: skip
    assert site.user(site.add("root-ann")["id"]).name == "root-ann-2", "never somebody's name"


def test_the_last_owner_stays(site: Site) -> None:
    ann = site.add("ann")
    site.run(site.people.give_role(OWNER, subject="ann", role="owner"))
    off = patch({"op": "replace", "path": "active", "value": False})
    for method, body in (("PATCH", off), ("DELETE", None)):
        answer = site.ask(method, f"/Users/{ann['id']}", body)
        assert answer.status == 403 and "owner" in answer.json["detail"]
    assert not site.user(ann["id"]).is_disabled


def test_lists_are_filtered_and_come_in_pages(site: Site) -> None:
    for number in range(5):
        site.add(f"User{number}", emails=[{"value": f"u{number}@example.com"}], externalId=f"X{number}")

    def names(query: str) -> list[str]:
        return [each["userName"] for each in site.ask("GET", f"/Users?{query}").json["Resources"]]

    assert names("filter=userName+eq+%22user3%22") == ["User3"], "names are compared without capitals"
    assert names("filter=externalId+eq+%22x3%22") == [] and names("filter=externalId+eq+%22X3%22") == [
        "User3"
    ]
    assert names("filter=emails.value+sw+%22u1%22+or+(userName+ew+%222%22)") == ["User1", "User2"]
    assert names("filter=not+(userName+co+%22user%22)") == []
    assert names("startIndex=2&count=2") == ["User1", "User2"] and names("count=0") == []
    asked = {"filter": 'userName eq "user3"', "attributes": ["userName"], "count": 5}
    [found] = site.ask("POST", "/Users/.search", asked).json["Resources"]
    assert found["userName"] == "User3" and "emails" not in found
    assert site.ask("POST", "/.search", asked).json["totalResults"] == 1
    page = site.ask("GET", "/Users?startIndex=4&count=10").json
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (5, 4, 2)
    [only] = site.ask("GET", "/Users?count=1&attributes=userName").json["Resources"]
    assert set(only) == {"schemas", "id", "meta", "userName"}
    [less] = site.ask("GET", "/Users?count=1&excludedAttributes=emails,externalId").json["Resources"]
    assert "emails" not in less and "externalId" not in less and less["userName"] == "User0"
    for wrong in (
        "userName",
        "userName+eq",
        "userName+xx+%22a%22",
        "(userName+pr",
        "a+eq+b",
        "userName+pr+x",
    ):
        answer = site.ask("GET", f"/Users?filter={wrong}")
        assert (answer.status, answer.json["scimType"]) == (400, "invalidFilter"), wrong
    assert site.ask("GET", "/Users?count=many").json["scimType"] == "invalidValue"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", "/Users", {}, 400, "invalidValue"),
        ("POST", "/Users", {"userName": 7}, 400, "invalidValue"),
        ("POST", "/Users", {"userName": "a\nb"}, 400, "invalidValue"),
        ("POST", "/Users", {"userName": "a", "active": "perhaps"}, 400, "invalidValue"),
        ("POST", "/Users", {"userName": "a", "emails": "x"}, 400, "invalidValue"),
        ("POST", "/Users", {"userName": "THERE"}, 409, "uniqueness"),
        ("POST", "/Users", b"{", 400, "invalidSyntax"),
        ("POST", "/Users", b"[]", 400, "invalidSyntax"),
        ("POST", "/Groups", {"displayName": " "}, 400, "invalidValue"),
        ("POST", "/Groups", {"displayName": "g", "members": [{}]}, 400, "invalidValue"),
        ("PATCH", "/Users/ID", patch(), 400, "invalidSyntax"),
        ("PATCH", "/Users/ID", patch({"op": "paint", "path": "active"}), 400, "invalidSyntax"),
        ("PATCH", "/Users/ID", patch({"op": "replace", "path": "id", "value": "x"}), 400, "mutability"),
        ("PATCH", "/Users/ID", patch({"op": "add", "path": "groups", "value": [{}]}), 400, "mutability"),
        ("PATCH", "/Users/ID", patch({"op": "remove"}), 400, "noTarget"),
        (
            "PATCH",
            "/Users/ID",
            patch({"op": "remove", "path": 'emails[value eq "x"].value'}),
            400,
            "noTarget",
        ),
        ("PATCH", "/Users/ID", patch({"op": "remove", "path": "a[b"}), 400, "invalidPath"),
        ("PATCH", "/Users/ID", patch({"op": "remove", "path": "userName"}), 400, "invalidValue"),
        ("DELETE", "/Users", None, 405, None),
        ("POST", "/Users/ID", {}, 405, None),
        ("PUT", "/Schemas", {}, 405, None),
        ("GET", "/Me", None, 501, None),
        ("GET", "/Schemas/none", None, 404, None),
        ("GET", "/", None, 404, None),
    ],
)
def test_what_cannot_be_is_refused_in_its_words(
    site: Site, method: str, path: str, body: Any, status: int, kind: str | None
) -> None:
    there = site.add("there")
    answer = site.ask(method, path.replace("ID", there["id"]), body)
    assert (answer.status, answer.json.get("scimType")) == (status, kind), answer.body
    assert answer.json["status"] == str(status) and answer.json["detail"]
    assert site.ask("GET", f"/Users/{there['id']}").json == there, "nothing was done"


def test_it_says_what_it_can(site: Site) -> None:
    config = site.ask("GET", "/ServiceProviderConfig").json
    assert config["patch"]["supported"] and config["etag"]["supported"] and not config["bulk"]["supported"]
    kinds = site.ask("GET", "/ResourceTypes").json["Resources"]
    assert [each["endpoint"] for each in kinds] == ["/Users", "/Groups"]
    for each in kinds:
        assert site.ask("GET", f"/ResourceTypes/{each['id']}").json == each
        assert site.ask("GET", f"/Schemas/{each['schema']}").json["name"] == each["name"]


def test_paths_of_a_patch() -> None:
    one = {"emails": [{"type": "work", "value": "a"}], "name": {"formatted": "A"}}

    def after(*operations: dict[str, Any]) -> dict[str, Any]:
        return patched(one, patch(*operations), frozenset())

    work = 'emails[type eq "work"].value'
    assert after({"op": "replace", "path": work, "value": "b"})["emails"] == [{"type": "work", "value": "b"}]
    made = after({"op": "add", "path": 'emails[type eq "home"].value', "value": "h"})["emails"][1]
    assert made == {"type": "home", "value": "h"}
    assert after({"op": "remove", "path": 'emails[type eq "work"]'})["emails"] == []
    assert after({"op": "add", "path": "name.familyName", "value": "B"})["name"]["familyName"] == "B"
    prefix = "urn:ietf:params:scim:schemas:core:2.0:User"
    assert after({"op": "replace", "path": f"{prefix}:title", "value": "Dr"})["title"] == "Dr"
    assert after({"op": "remove", "path": "emails", "value": [{"value": "a"}]})["emails"] == []
    assert one == {"emails": [{"type": "work", "value": "a"}], "name": {"formatted": "A"}}, (
        "a copy was changed"
    )
    with pytest.raises(BadPatch, match="a PATCH has a list of Operations"):
        patched(one, {"Operations": [{}] * 1001}, frozenset())
    deep = "(" * 50 + "a pr" + ")" * 50
    with pytest.raises(BadFilter, match="nested too deeply"):
        parse_filter(deep)
    with pytest.raises(BadFilter, match="too long"):
        parse_filter("a" * 3000)


@pytest.mark.nightly
def test_a_public_tester_finds_nothing(site: Site) -> None:
    """Of SCIM servers: it makes, reads, changes and removes each kind of resource by what the schemas say."""
    tester = pytest.importorskip("scim2_tester")
    from scim2_client.engines.wsgi import WSGISCIMClient

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        headers = {name[5:].lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        headers.pop("host", None)
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        path = environ["PATH_INFO"].removeprefix(ROOT) + query
        answer = site.ask(environ["REQUEST_METHOD"], path, environ["wsgi.input"].read(size), **headers)
        start_response(f"{answer.status} X", list(answer.headers.items()))
        return [answer.body]

    client = WSGISCIMClient(wsgi, base_url=f"https://argosy.example{ROOT}")
    client.discover()
    results = tester.check_server(client)
    bad = [each.reason for each in results if each.status.name not in ("SUCCESS", "SKIPPED", "ACCEPTABLE")]
    assert len(results) > 60
    assert bad == ["PATCH modify() did not remove attribute 'active'"], (
        "what is not said is its default: true"
    )
