"""A session that is shared: another person sees it and may open its app, and nothing else."""

from __future__ import annotations

from site_of_people import Site


def test_a_share_opens_the_app_and_nothing_else(site: Site) -> None:
    for name, project in (("ann", "vision"), ("dan", "speech")):
        site.add_user(name, "member", project)
    ann, dan = site.token("ann"), site.token("dan")
    asked = {"app": "jupyter", "name": "lab", "project": "vision"}
    made = site.ask("POST", "/sessions", asked, token=ann)
    assert made.status == 200, made.json
    path = f"/sessions/{made.json['id']}"
    assert site.ask("GET", path, token=dan).status == 404
    assert site.ask("POST", f"{path}/open", {}, token=dan).status == 404
    assert site.ask("POST", f"{path}/share", {"who": "dan"}, token=dan).status == 404

    assert site.ask("POST", f"{path}/share", {"who": "dan"}, token=ann).status == 200
    assert [each["name"] for each in site.ask("GET", "/sessions", token=dan).json["sessions"]] == ["lab"]
    assert site.ask("GET", path, token=dan).json["shares"][0]["who"] == "dan"
    opened = site.ask("POST", f"{path}/open", {}, token=dan)
    assert opened.json["what"] == "session `lab` is not up yet"  # it would be, with a node
    for verb, body in (("stop", {}), ("share", {"who": "eva"}), ("open", {"port": 22})):
        assert site.ask("POST", f"{path}/{verb}", body, token=dan).status == 404, verb
    assert site.ask("DELETE", path, token=dan).status == 404

    assert site.ask("POST", f"{path}/share", {"who": "dan", "seconds": 0}, token=ann).status == 200
    assert site.ask("GET", path, token=dan).status == 404

    watched = {"who": "dan", "watch": True}
    assert site.ask("POST", f"{path}/share", watched, token=ann).status == 200
    assert site.ask("GET", path, token=dan).json["shares"][0]["watch"] is True
    assert site.ask("POST", f"{path}/open", {}, token=dan).status == 404


def test_a_container_has_one_image_and_its_machine_any(site: Site) -> None:
    site.add_user("ann", "member", "vision")
    ann = site.token("ann")
    asked = {"app": "terminal", "project": "vision", "isolation": "container"}
    for image in (None, "ami-1"):
        wish = {"resources": [{"image_id": image}]} if image else {}
        refused = site.ask("POST", "/sessions", {**asked, "task": wish}, token=ann)
        assert (refused.status, refused.json["code"]) == (422, "spec-invalid")
        assert refused.json["what"] == "isolation `container` needs one image of a container"
        assert refused.json["hint"] == "write --image NAME, or `image_id: docker:NAME`"
    wish = {"resources": [{"image_id": "docker:lab/tools:1"}]}
    made = site.ask("POST", "/sessions", {**asked, "task": wish}, token=ann)
    assert made.status == 200, made.json
    assert (made.json["image"], made.json["isolation"]) == ("docker:lab/tools:1", "container")


def test_a_request_that_lost_its_web_socket_says_where_to_look(site: Site) -> None:
    """As from a browser behind a proxy that passes none."""
    site.add_user("ann", "member", "vision")
    ann = site.token("ann")
    made = site.ask("POST", "/sessions", {"app": "terminal", "project": "vision"}, token=ann)
    path = f"/sessions/{made.json['id']}/shell"
    said = site.ask("GET", path, token=ann)
    assert (said.status, said.json["code"]) == (400, "usage")
    assert said.json["what"] == f"/v1{path} speaks WebSocket, and this request does not ask for that"
    assert said.json["hint"].endswith("it must pass the fields Upgrade and Connection")
    assert site.ask("GET", path).status == 401
