"""App files: those that come with Argosy, and what is wrong in files of users."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from argosy.apps.files import find_app, known_apps, parse_app, shipped
from argosy.controllers.installing import folder_name, install_text
from argosy.model.errors import ArgosyError

SHIPPED = shipped()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_app_says_what_it_is_and_trusts_nobody(name: str) -> None:
    app = SHIPPED[name]
    assert app.title and app.about
    if app.listens == "socket":
        assert "$ARGOSY_APP_SOCKET" in app.command
    elif app.listens == "port" and not app.port:
        assert "$ARGOSY_APP_PORT" in app.command
    assert "0.0.0.0" not in app.command


def test_the_example_is_an_app_of_ones_own(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "sessions" / "pages.toml"
    (tmp_path / "pages.toml").write_bytes(example.read_bytes())
    app = find_app(tmp_path, "pages")
    assert app.is_proxied and app.title == "Pages" and "$ARGOSY_APP_PORT" in app.command


def test_all_that_are_promised_are_there() -> None:
    promised = "jupyter notebook vscode terminal tensorboard marimo rstudio desktop ssh port"
    assert set(promised.split()) <= SHIPPED.keys()


def test_files_of_users_come_first(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text('title = "B"\nlistens = "port"\ncommand = "b"\n')
    (tmp_path / "terminal.toml").write_text('title = "Mine"\n')
    apps = known_apps(tmp_path)
    assert apps["board"].listens == "port" and apps["terminal"].title == "Mine"
    assert list(apps) == sorted(apps) and known_apps(tmp_path / "none") == dict(sorted(SHIPPED.items()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("listens =", "Invalid value"),
        ('colour = "red"', "unknown field `colour`"),
        ("port = 80", "port is given, and listens is not `port`"),
        ('listens = "tcp"', "listens is `tcp`: socket or port"),
        ('listens = "port"\nport = 70000', "port is 70000: 1 to 65535"),
        ('ready = "x"', "paths in ready and quiet begin with /"),
        ('listens = "port"\nneeds = ["a"]', "needs and program are of a command, and there is none"),
        ('program = "a"', "needs and program are of a command, and there is none"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(text: str, told: str) -> None:
    with pytest.raises(ArgosyError, match=told) as caught:
        parse_app("board", text, "/x/board.toml")
    assert caught.value.code == "spec-invalid" and caught.value.where == "/x/board.toml"


def test_names_are_names(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="`My Board` is no name of an app"):
        parse_app("My Board", "", "x")
    with pytest.raises(ArgosyError, match="there is no app `jupiter`") as caught:
        find_app(tmp_path, "jupiter")
    assert "jupyter" in caught.value.hint and find_app(tmp_path, "jupyter") == SHIPPED["jupyter"]


def test_one_bad_file_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text("port = 80\n")
    assert known_apps(tmp_path) == dict(sorted(SHIPPED.items()))
    with pytest.raises(ArgosyError, match="port is given"):
        find_app(tmp_path, "board")


def test_what_is_needed_is_installed_by_content() -> None:
    app = SHIPPED["jupyter"]
    text = install_text(app, "pip install mine")
    assert folder_name(app) in text and "'jupyterlab>=4.2,<5'" in text and "PIP_NO_INDEX=1" in text
    assert text.endswith("pip install mine")
    assert install_text(SHIPPED["terminal"], "mine") == "mine" and folder_name(SHIPPED["terminal"]) == ""


@pytest.mark.parametrize(
    ("name", "program", "told"),
    [
        ("rstudio", "rserver", {"--www-address=127.0.0.1", "--www-port=8123", "--auth-none=1"}),
        ("desktop", "kasmvncserver", {"-interface", "127.0.0.1", "-websocketPort", "8123"}),
    ],
)
def test_a_program_that_must_be_there_is_told_to_listen_for_the_proxy_alone(
    tmp_path: Path, name: str, program: str, told: set[str]
) -> None:
    """By a stand-in for the program, which notes its arguments."""
    app, stand_in = SHIPPED[name], tmp_path / "bin" / program
    assert app.program.split()[0] == program
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    stand_in.chmod(0o755)
    env = {
        "PATH": f"{stand_in.parent}:/usr/bin:/bin",
        "ARGOSY_APP_PORT": "8123",
        "ARGOSY_APP_DIR": str(tmp_path),
    }
    subprocess.run(["bash", "-euc", app.command], env=env, check=True, cwd=tmp_path)
    assert told <= set((tmp_path / "arguments").read_text().split("\n"))
    if name == "rstudio":
        key = tmp_path / "key"
        assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_text()) == 64


@pytest.mark.nightly
def test_a_folder_of_wheels_is_all_that_is_asked(tmp_path: Path) -> None:
    """Installed once, with no index to ask; the next start finds it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "my_board-2.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("my_board.py", "print('from the folder')\n")
        about = "my_board-2.1.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: my-board\nVersion: 2.1\n")
        wheel.writestr(
            about + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(about + "RECORD", "")
    app = parse_app("board", 'listens = "port"\nneeds = ["my-board>=2"]\ncommand = "b"\n', "board.toml")
    env = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "ARGOSY_WHEELS": str(wheels),
        "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    text = install_text(app, '"$app/bin/python" -m my_board')
    for said in ("installing 'my-board>=2' (once on this node)\nfrom the folder\n", "from the folder\n"):
        done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, said), done.stderr
