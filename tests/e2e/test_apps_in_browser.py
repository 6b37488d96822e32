"""Every app in a real browser, at its own name below `localhost`: it is driven until it has worked, and none
of its requests failed or went to another host.

Packages are installed from pip's index the first time. ARGOSY_CODE_SERVER names an `entry.js` of code-server
that is not on the PATH; ARGOSY_SCREENSHOTS=FOLDER keeps pictures.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import pytest
from e2e_house import House

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ENTRY = os.environ.get("ARGOSY_CODE_SERVER", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
#: A part of VS Code that only Microsoft's own builds have, and that others ask for all the same.
LACKING = "/node_modules/vsda/"
LONG_MS = 120_000.0
#: The middle of what is on a desktop that is otherwise of one colour, once there is as much as a window.
WINDOW = """() => {
  const screen = document.querySelector("canvas"), { width, height } = screen;
  const pixels = new Uint32Array(screen.getContext("2d").getImageData(0, 0, width, height).data.buffer);
  let [count, x, y] = [0, 0, 0];
  pixels.forEach((colour, at) => {
    if (colour !== pixels[pixels.length - 1]) { count++; x += at % width; y += Math.floor(at / width); }
  });
  return count > 20000 && [x / count, y / count];
}"""
DESKTOP = ("Xtigervnc", "websockify", "openbox", "xterm", "xauth")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]

NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
         "source": "print('answer', 6 * 7)"}
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip
MARIMO = """\
import marimo

app = marimo.App()


@app.cell
def _():
    print("answer", 6 * 7)
    return


if __name__ == "__main__":
    app.run()
"""
SCALARS = """\
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
w = EventFileWriter("logs")
for step in range(20):
    w.add_event(Event(step=step, wall_time=1.0 + step,
        summary=Summary(value=[Summary.Value(tag="loss", simple_value=1.0 / (1 + step))])))
w.close()
"""


def _jupyter(page: Page) -> None:
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-OutputArea-output").get_by_text("answer 42").wait_for()


def _marimo(page: Page) -> None:
    page.locator(".cm-content").first.wait_for()
    page.keyboard.press("Control+Shift+r")
    page.get_by_text("answer 42").first.wait_for()


def _tensorboard(page: Page) -> None:
    for _ in range(20):  # it looks for new files every five seconds, and its page does not look again
        page.wait_for_load_state("networkidle")
        if page.get_by_text("loss").count():
            break
        page.wait_for_timeout(3000)
        page.reload()
    page.get_by_text("loss").first.wait_for()


def _vscode(page: Page) -> None:
    page.locator(".monaco-workbench").wait_for()
    page.get_by_role("treeitem", name="a.ipynb").wait_for()
    page.keyboard.press("Control+`")
    page.locator(".xterm-helper-textarea").first.wait_for(state="attached")


def _desktop(page: Page) -> None:
    page.locator("html.noVNC_connected").wait_for(state="attached")
    x, y = page.wait_for_function(WINDOW).json_value()
    page.locator("canvas").first.click(position={"x": x, "y": y})
    page.keyboard.type("echo answer $((6 * 7)) > typed\n")


def _port(page: Page) -> None:
    page.get_by_text("a.ipynb").wait_for()


class App(NamedTuple):
    drive: Callable[[Page], None]
    path: str = "/"  # that is opened
    before: str = ""  # runs in the session
    after: str = ""  # runs in the session when the page was driven, and ends well
    level: str = "sandbox"


APPS = {
    "jupyter": App(_jupyter, "/lab/tree/a.ipynb"),
    "notebook": App(_jupyter, "/notebooks/a.ipynb"),
    "marimo": App(_marimo, "/?file=a.py"),
    "tensorboard": App(_tensorboard, before="python3 scalars.py"),
    "vscode": App(_vscode, level="process" if ENTRY else "sandbox"),
    "desktop": App(_desktop, after="until [ -s typed ]; do sleep 0.1; done; grep -x 'answer 42' typed"),
    "port": App(_port, before="setsid python3 -m http.server 8080 >/dev/null 2>&1 & sleep 1"),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def home() -> Iterator[House]:
    house = House()
    if ENTRY:
        program = house.file("bin/code-server", f'#!/bin/sh\nexec node "{ENTRY}" "$@"\n')
        program.chmod(0o755)
        house.env["PATH"] = f"{program.parent}:{house.env['PATH']}"
    try:
        yield house
    finally:
        house.close()


@pytest.mark.parametrize("app", APPS)
def test_it_works_and_asks_nobody_else(home: House, browser: Browser, app: str) -> None:
    if app == "vscode" and not ENTRY and not shutil.which("code-server"):
        pytest.skip("code-server is not installed: ARGOSY_CODE_SERVER names it")
    if app == "desktop" and not all(shutil.which(each) for each in DESKTOP):
        pytest.skip(
            "NO DESKTOP: apt-get install tigervnc-standalone-server novnc websockify openbox xterm xauth"
        )
    drive, path, before, after, level = APPS[app]
    home.run("session", "start", app, "--isolation", level, ok=False)
    home.wait("it is up", lambda: home.json("session", "ls")["sessions"][-1]["status"] == "running")
    text = json.dumps(NOTEBOOK)
    for name, content in (("a.ipynb", text), ("a.py", MARIMO), ("scalars.py", SCALARS)):
        home.run("session", "open", app, "--", "sh", "-c", f"cat > {name} <<'END'\n{content}\nEND")
    if before:
        home.run("session", "open", app, "--", "sh", "-c", before)
    opening = home.spawn("session", "open", app, "--no-browser")
    assert opening.stdout is not None
    address = opening.stdout.readline().decode().strip()
    page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
    page.set_default_timeout(LONG_MS)
    failed: list[str] = []
    answered: list[tuple[int, str]] = []
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(f"{request.failure} of {request.url}"))
    page.on("response", lambda answer: answered.append((answer.status, answer.url)))
    page.on("websocket", lambda socket: asked.append(socket.url))
    try:
        page.goto(f"{address}&next={quote(path, safe='')}", wait_until="commit")
        page.wait_for_url(re.compile(r"localhost:\d+/(?!\.argosy)"), wait_until="commit")
        drive(page)
        page.wait_for_load_state("networkidle")
        if after:
            home.run("session", "open", app, "--", "sh", "-c", after)
    finally:
        if folder := os.environ.get("ARGOSY_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/app-{app}.png")
        page.context.close()
        opening.terminate()
        opening.wait(20)
        home.run("session", "end", "-y", app, ok=False)
    own = re.compile(rf"(https?|wss?)://{app}--{app}\.localhost:\d+/|data:|blob:|vscode-")
    assert [url for url in asked if not own.match(url)] == []
    assert [each for each in failed if "ERR_ABORTED" not in each] == []  # those the page itself gave up
    assert [each for each in answered if each[0] >= 400 and LACKING not in each[1]] == []
    assert any(each[0] == 200 for each in answered)
    assert len(asked) > 1
