"""Who may provision: the door of SCIM over the network."""

from __future__ import annotations

import http.client
import json
from typing import Any

from site_of_people import Site

from argosy.model.access import OWNER


def ask(site: Site, method: str, path: str, token: str = "", body: Any = None) -> tuple[int, dict[str, Any]]:
    host, _, port = site.address.rpartition("/")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=90)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, json.loads(text) if text else {}


def test_only_who_provisions_comes_in_and_gets_no_further(site: Site) -> None:
    directory = site.add_user("directory", "provisioner", is_service=True)
    made = site.do(site.application.identity.credentials.add_token(OWNER, name="scim", user=directory))
    site.add_user("member", "member", "vision")
    site.add_user("boss", "admin")
    users = "/scim/v2/Users"
    assert ask(site, "GET", users)[0] == 401 and ask(site, "GET", users, "argosy_pat_x")[0] == 401
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert ask(site, method, users, site.token("member"), {})[0] == 403, method
    assert ask(site, "GET", users, site.token("boss"))[0] == 200, "an administrator may do it, too"
    status, ann = ask(site, "POST", users, made.secret, {"userName": "ann"})
    assert status == 201 and ask(site, "GET", f"{users}/{ann['id']}", made.secret)[1] == ann
    for method, path in (("GET", "/users"), ("POST", "/users"), ("GET", "/jobs"), ("GET", "/audit")):
        assert site.ask(method, path, {} if method == "POST" else None, token=made.secret).status == 403, path
    acts = [each.act for each in site.do(site.store.load_acts())]
    mine = [each for each in acts if each.action == "scim"]
    assert [(each.who, each.outcome) for each in mine] == [("directory", "done")] and ann["id"] in mine[
        0
    ].changes
    site.do(site.application.identity.credentials.remove_token(OWNER, "scim", "directory"))
    site.clock.advance(1)
    assert ask(site, "GET", users, made.secret)[0] == 401
