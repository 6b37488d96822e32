"""Folders between people: what a grant opens, at once and no more; whom nobody knows; invitations."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request

import pytest
from site_of_people import Site

from argosy.client.client import Client
from argosy.client.folder_bridge import Bridge
from argosy.client.folders import FolderFiles
from argosy.model.errors import ArgosyError
from argosy.model.mounts import ServedFolder
from argosy.server.node_folders import MountedFolder, mount_root


@pytest.fixture
def people(site: Site) -> dict[str, str]:
    """Tokens by name. ann and bob are members of vision, dan of speech; vic sees vision, adm runs it."""
    for name, role, project in (
        ("ann", "member", "vision"),
        ("bob", "member", "vision"),
        ("dan", "member", "speech"),
        ("vic", "viewer", "vision"),
        ("adm", "admin", "vision"),
    ):
        site.add_user(name, role, project)
    return {name: site.token(name) for name in ("ann", "bob", "dan", "vic", "adm")}


def write(site: Site, token: str, folder: str, path: str = "x") -> int:
    told = f"path {base64.b64encode(path.encode()).decode()},replace {base64.b64encode(b'true').decode()}"
    return site.ask(
        "POST", f"/folders/{folder}/uploads", token=token, **{"upload-length": "0", "upload-metadata": told}
    ).status


def test_grants_open_at_once_and_no_more(site: Site, people: dict[str, str]) -> None:
    ann, bob, dan, vic = people["ann"], people["bob"], people["dan"], people["vic"]
    made = site.ask("POST", "/folders", {"name": "train", "project": "vision"}, token=ann)
    assert made.status == 200 and made.json["owner"] == "ann" and made.json["access"] == "manage"
    assert write(site, ann, "train") == 201
    for other in (bob, dan, vic):
        assert site.ask("GET", "/folders/train", token=other).status == 404
    assert site.ask("GET", "/folders/train", token=people["adm"]).json["access"] == "manage"

    def share(to: str, level: str) -> None:
        answer = site.ask("POST", "/folders/train/grants", {"to": to, "level": level}, token=ann)
        assert answer.status == 200, answer.json

    share("dan", "ro")
    assert site.ask("GET", "/folders/train/content?path=x", token=dan).status == 200
    assert write(site, dan, "train") == 403
    share("dan", "rw")
    assert write(site, dan, "train", "y") == 201
    assert site.ask("DELETE", "/folders/train/files?path=y", token=dan).status == 403
    assert site.ask("POST", "/folders/train/grants", {"to": "bob"}, token=dan).status == 403
    share("dan", "rw+delete")
    assert site.ask("DELETE", "/folders/train/files?path=y", token=dan).status == 200
    share("project:vision", "rw")
    assert write(site, bob, "train", "z") == 201
    assert site.ask("GET", "/folders/train", token=vic).json["access"] == "ro"  # as far as the role goes
    assert write(site, vic, "train", "z") == 403
    assert site.ask("DELETE", "/folders/train/grants/dan", token=ann).status == 200
    assert site.ask("GET", "/folders/train", token=dan).status == 404  # at once


def test_whom_nobody_knows(site: Site, people: dict[str, str]) -> None:
    ann = people["ann"]
    site.ask("POST", "/folders", {"name": "train", "project": "vision"}, token=ann)
    answer = site.ask("POST", "/folders/train/grants", {"to": "zoe"}, token=ann)
    assert (answer.status, answer.json["what"]) == (404, "there is no user `zoe`")
    assert "project:NAME" in answer.json["hint"]
    assert site.ask("PUT", "/folders/train", {"owner": "zoe"}, token=ann).status == 404
    assert site.ask("POST", "/folders/train/grants", {"to": "group:x"}, token=ann).status == 400


def test_invitations(site: Site, people: dict[str, str]) -> None:
    ann, dan = people["ann"], people["dan"]
    site.ask("POST", "/folders", {"name": "train", "project": "vision"}, token=ann)
    request = {"to": "dan", "level": "rw", "invite": True}
    assert site.ask("POST", "/folders/train/grants", request, token=ann).status == 200
    (seen,) = site.ask("GET", "/folders", token=dan).json["folders"]
    assert seen["invited_by"] == "ann" and seen.get("access", "") == ""
    assert site.ask("GET", "/folders/train/files", token=dan).status == 404
    assert site.ask("POST", "/folders/train/answer", {"accept": True}, token=dan).status == 200
    assert site.ask("GET", "/folders/train", token=dan).json["access"] == "rw"
    again = site.ask("POST", "/folders/train/answer", {"accept": True}, token=dan)
    assert again.json["what"] == "nobody invited you to a folder `train`"
    given = site.ask("PUT", "/folders/train", {"owner": "dan"}, token=ann)
    assert given.status == 200 and site.ask("GET", "/folders/train", token=ann).status == 404


def test_dot_folders_and_credentials_that_only_read(site: Site, people: dict[str, str]) -> None:
    for name in ("ann", "bob"):
        made = site.ask("POST", "/folders", {"name": ".config", "project": "vision"}, token=people[name])
        assert made.status == 200
    assert write(site, people["bob"], ".config", "mine") == 201
    assert site.ask("GET", "/folders/.config/files", token=people["ann"]).json["files"] == []


def test_who_loses_a_folder_loses_it_in_a_mount_that_is_open(site: Site, people: dict[str, str]) -> None:
    """What a mount asks, the server decides with each call: reading, writing, and nothing any more."""
    ann = people["ann"]
    made = site.ask("POST", "/folders", {"name": "train", "project": "vision"}, token=ann).json["id"]
    assert write(site, ann, made) == 201
    env = {"ARGOSY_SERVER": f"http://{site.address.rpartition('/')[2]}", "ARGOSY_TOKEN": people["dan"]}
    client = Client(env=env, start=False)
    files = FolderFiles(client.location, made)
    bridge = Bridge(made, lambda: Client(env=env, start=False), files, "secret")
    bridge.start()

    def put() -> int:
        head = {"authorization": "Bearer secret", "content-length": "3"}
        request = urllib.request.Request(f"{bridge.url}/new", b"new", head, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    try:
        for level, status in (("ro", 403), ("rw", 201), ("", 404)):
            if level:
                site.ask("POST", f"/folders/{made}/grants", {"to": "dan", "level": level}, token=ann)
            else:
                site.ask("DELETE", f"/folders/{made}/grants/dan", token=ann)
            assert put() == status, level
    finally:
        bridge.shutdown()
        bridge.server_close()
        files.close()


def test_who_loses_a_folder_loses_it_on_nodes_too(site: Site, people: dict[str, str]) -> None:
    """What runs for dan has what dan has at that moment; and never more than `:ro` says."""
    ann, ids = people["ann"], dict[str, str]()
    for name in ("train", "secret"):
        ids[name] = site.ask("POST", "/folders", {"name": name, "project": "vision"}, token=ann).json["id"]
        assert write(site, ann, ids[name], "sub/x") == 201

    async def opened(mount: ServedFolder) -> MountedFolder:
        return MountedFolder(site.application.objects.folders._opened(mount), mount)

    def mount(**more: object) -> MountedFolder:
        served = ServedFolder(target="/d", folder=ids["train"], as_user="dan", **more)  # type: ignore[arg-type]
        return site.do(opened(served))

    def told(work: object) -> str:
        try:
            work()  # type: ignore[operator]
        except ArgosyError as error:
            return f"{error.code}: {error.what}"
        return ""

    root, files = ids["train"], mount()
    for level, said in (
        ("", "forbidden: `dan` has `` on `train`, and this needs `rw`"),
        ("ro", "forbidden: `dan` has `ro` on `train`, and this needs `rw`"),
        ("rw", ""),
    ):
        if level:
            site.ask("POST", f"/folders/{root}/grants", {"to": "dan", "level": level}, token=ann)
        assert told(lambda: files.write(f"{root}/new", 3, iter((b"new",)))) == said, level
    assert [each.name for each in files.list(root)] == ["new", "sub"]
    assert files.look(f"{root}/new").size == 3 and files.look(root).kind == "folder"
    assert told(lambda: files.remove(f"{root}/new")).endswith("and this needs `rw+delete`")
    reading = mount(read_only=True)
    assert told(lambda: reading.make_folder(f"{root}/more")) == "forbidden: it is mounted to be read"
    part = mount(sub_path="sub")
    below = mount_root(ServedFolder(target="/d", folder=root, sub_path="sub"))
    assert [each.name for each in part.list(below)] == ["x"]
    for path in (f"{below}/../new", f"{below}/../../{ids['secret']}/sub/x", f"{below}/%2e%2e/new"):
        assert told(lambda path=path: part.look(path))  # type: ignore[misc]
    for path in (ids["secret"], f"{root}/new", "", f"{below}x", "/etc/passwd"):
        assert told(lambda path=path: part.look(path)).startswith("not-found"), path  # type: ignore[misc]
    site.ask("PUT", f"/folders/{root}", {"trashed": True}, token=ann)
    assert told(lambda: files.list(root)) == "conflict: `train` is in the trash"
    site.ask("PUT", f"/folders/{root}", {"trashed": False}, token=ann)
    site.ask("DELETE", f"/folders/{root}/grants/dan", token=ann)
    assert told(lambda: files.list(root)).startswith("forbidden")
