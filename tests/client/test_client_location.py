"""Where the server is, from the environment alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from argosy.api.location import SOCKET_PATH_LIMIT, Location, locate, socket_path, state_dir
from argosy.client.client import Client
from argosy.model.errors import ArgosyError


@pytest.mark.parametrize(
    ("env", "home"),
    [
        ({"HOME": "/h"}, "/h/.argosy"),
        ({"HOME": "/h", "ARGOSY_HOME": ""}, "/h/.argosy"),
        ({"HOME": "/h", "ARGOSY_HOME": "/srv/a"}, "/srv/a"),
        ({"HOME": "/h", "ARGOSY_HOME": "~/x"}, "/h/x"),
        ({"HOME": "/h", "ARGOSY_HOME": "rel"}, os.path.abspath("rel")),
    ],
)
def test_state_folder(env: dict[str, str], home: str) -> None:
    assert state_dir(env) == Path(home)


def test_the_socket_is_in_the_folder_or_short() -> None:
    assert socket_path(Path("/h/.argosy")) == Path("/h/.argosy/run/server.sock")
    long = Path("/" + "é" * 60)
    short = socket_path(long, uid=7)
    assert short.parent == Path("/tmp/argosy-7") and short == socket_path(long, uid=7)
    assert short != socket_path(long / "x", uid=7)
    edge = Path("/" + "x" * (SOCKET_PATH_LIMIT - len("//run/server.sock") - 1))
    assert len(str(socket_path(edge))) == SOCKET_PATH_LIMIT - 1
    assert str(socket_path(Path(f"{edge}x"))).startswith("/tmp/argosy-")


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("", "/h/.argosy/run/server.sock"),
        ("unix:///run/a.sock", "/run/a.sock"),
        ("/run/a.sock", "/run/a.sock"),
        ("http://gpu:7421", "http://gpu:7421"),
        ("gpu:7421", "http://gpu:7421"),
        ("https://gpu", "https://gpu:443"),
        ("http://gpu/argosy/", "http://gpu:80/argosy"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses(server: str, shown: str) -> None:
    location = locate({"HOME": "/h", "ARGOSY_SERVER": server, "ARGOSY_TOKEN": " s3cret\n"})
    assert location.render() == shown
    assert location.token == "s3cret" and "s3cret" not in repr(location)
    assert location.is_default == (server == "")


@pytest.mark.parametrize(
    "server", ["ftp://x", "http://", "http://x:port", "http://user:pw@x", "http://x:99999"]
)
def test_what_is_no_address(server: str) -> None:
    with pytest.raises(ArgosyError) as error:
        locate({"HOME": "/h", "ARGOSY_SERVER": server})
    assert error.value.code == "usage" and "pw" not in error.value.what


def test_another_users_socket_is_refused(short_dir: Path) -> None:
    path = short_dir / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        if os.getuid() == 0:
            os.chown(path, 4242, 4242)
            with pytest.raises(ArgosyError, match="belongs to another user"):
                Client(Location(path, is_default=True), start=False).status()
    path.unlink()
    path.write_text("")
    with pytest.raises(ArgosyError) as error:
        Client(Location(path, is_default=True), start=False).status()
    assert error.value.code == "server-unreachable"
