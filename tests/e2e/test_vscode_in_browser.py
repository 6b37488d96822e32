"""The VS Code extension in a real editor: code-server in chromium. Both need to be installed, as Playwright.

ARGOSY_CODE_SERVER names an `entry.js` that is not on the PATH; ARGOSY_SCREENSHOTS=FOLDER keeps pictures.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2e_house import ARGOSY, REPO, House

from argosy.testing.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

ENTRY = os.environ.get("ARGOSY_CODE_SERVER", "")
PROGRAM = ["node", ENTRY] if ENTRY else [shutil.which("code-server") or ""]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
LONG_MS = 90_000.0

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PROGRAM[-1], reason="code-server is not installed: ARGOSY_CODE_SERVER names it"),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    """Something of each kind: a cluster with a job that has ended, and a session that rests or runs."""
    house = House()
    try:
        example = REPO / "examples" / "sessions" / "pages.toml"
        house.file("state/apps/pages.toml", example.read_text(encoding="utf-8"))
        house.file("w/hello.yaml", "name: hello\nresources:\n  cpus: 0.5\nrun: |\n  echo hello\n")
        house.file("w/bad.yaml", "resorces:\n  cpus: 1\nrun: x\n")
        launch = ("launch", "-c", "dev", "--cpus", "0.5", "-y", "--", "for i in 1 2 3; do echo line $i; done")
        house.wait("the machine answers", lambda: house.run(*launch, ok=False).returncode == 0)
        house.run("session", "start", "pages", "--name", "board", "--isolation", "process")
        yield house
    finally:
        house.run("session", "end", "-y", "board", ok=False)
        house.close()


@pytest.fixture(scope="module")
def page(place: House) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp", ignore_cleanup_errors=True) as kept:
        folder = Path(kept)
        vsix = folder / "argosy.vsix"
        subprocess.run([sys.executable, REPO / "web" / "vscode" / "pack.py", vsix], check=True)
        settings = {
            "argosy.program": str(ARGOSY), "workbench.startupEditor": "none",
            "terminal.integrated.gpuAcceleration": "off", "workbench.colorTheme": "Default Dark Modern",
        }  # fmt: skip
        user = folder / "data" / "User"
        user.mkdir(parents=True)
        (user / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        common = [
            "--config", folder / "config.yaml", "--user-data-dir", folder / "data", "--extensions-dir",
            folder / "extensions",
        ]  # fmt: skip
        subprocess.run([*PROGRAM, *common, "--install-extension", vsix], check=True, capture_output=True)
        words = [
            *PROGRAM, *common, "--auth", "none", "--bind-addr", f"127.0.0.1:{port}", "--disable-telemetry",
            "--disable-update-check", "--disable-workspace-trust", "--disable-getting-started-override",
            place.root / "w",
        ]  # fmt: skip
        log = (folder / "log").open("wb")
        server = subprocess.Popen(words, env=place.env, stdout=log, stderr=log)
        try:
            place.wait("code-server listens", lambda: _listens(port))
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
                )
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(LONG_MS)
                page.goto(f"http://127.0.0.1:{port}/?folder={place.root}/w")
                page.locator(".activitybar [aria-label*='Argosy']").first.click()
                yield page
                browser.close()
        finally:
            server.terminate()
            server.wait(20)
            log.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _picture(page: Page, name: str) -> None:
    if folder := os.environ.get("ARGOSY_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/vscode-{name}.png")


def _row(page: Page, text: str) -> Any:
    return page.locator(".pane-body .monaco-list-row", has_text=text).first


def _command(page: Page, title: str) -> None:
    page.keyboard.press("F1")
    box = page.locator(".quick-input-widget input").first
    box.wait_for()
    box.fill(f">Argosy: {title}")
    page.locator(".quick-input-list .monaco-list-row", has_text=title).first.click()


def _open(page: Page, name: str) -> None:
    tabs = page.locator(".tabs-container .tab")
    if tabs.count():
        tabs.first.click()  # a terminal would have the keys
    page.keyboard.press("Control+p")
    box = page.locator(".quick-input-widget input").first
    box.wait_for()
    box.fill(name)
    page.locator(".quick-input-list .monaco-list-row", has_text=name).first.click()
    page.locator(".tab.active", has_text=name).wait_for()
    page.locator(".editor-actions .codicon-rocket").first.wait_for()  # it was seen that this is a task


def test_the_tree_shows_what_there_is_and_follows_it(place: House, page: Page) -> None:
    _row(page, "dev").wait_for()
    board = _row(page, "board")
    board.wait_for()
    assert "running" in board.inner_text()
    _picture(page, "tree")
    place.run("session", "stop", "board")
    page.locator(".monaco-list-row", has_text="board").filter(has_text="resting").wait_for()
    place.run("session", "start", "board")
    page.locator(".monaco-list-row", has_text="board").filter(has_text="running").wait_for()
    assert "cluster" in page.locator("[id='argosy.argosy.argosy.status']").inner_text()


def test_a_log_is_an_output_channel(page: Page) -> None:
    row = _row(page, "dev")
    row.click()
    page.keyboard.press("ArrowRight")
    job = page.locator(".monaco-list-row", has_text="succeeded").first
    job.hover()
    job.locator("[aria-label*='Show the Log']").click()
    page.locator(".output-view .view-line", has_text="line 3").wait_for()
    _picture(page, "log")


def test_task_files_are_completed_and_checked(page: Page) -> None:
    _open(page, "bad.yaml")
    page.locator(".squiggly-warning").first.wait_for()
    page.locator("[id='status.problems'] [aria-label*='1']").first.wait_for()
    _open(page, "hello.yaml")
    page.locator(".tab.active", has_text="hello.yaml").click()
    page.keyboard.press("Control+End")
    page.keyboard.type("num")
    page.locator(".suggest-widget .monaco-list-row", has_text="num_nodes").wait_for()
    _picture(page, "completion")
    page.keyboard.press("Escape")
    for _ in range(3):
        page.keyboard.press("Backspace")


def test_the_open_file_is_launched_after_its_plan_was_confirmed(place: House, page: Page) -> None:
    _open(page, "hello.yaml")
    _command(page, "Launch This File on a Cluster")
    page.locator(".quick-input-list .monaco-list-row", has_text="A new cluster").click()
    rows = page.locator(".terminal-wrapper.active .xterm-rows")
    rows.filter(has_text="[Y/n]").or_(rows.filter(has_text="[y/N]")).wait_for()
    _picture(page, "plan")
    assert [each["name"] for each in place.clusters()] == ["dev"], "nothing is launched before"
    page.keyboard.type("y\n")
    place.wait("the file was launched", lambda: len(place.clusters()) == 2)
    rows.filter(has_text="succeeded").wait_for()


def test_a_file_that_cannot_be_launched_shows_where(page: Page) -> None:
    _open(page, "bad.yaml")
    _command(page, "Show Where This File Would Run")
    told = page.locator(".notification-toast", has_text="Unknown field `resorces`. Did you mean `resources`?")
    told.wait_for()
    page.locator(".squiggly-error").first.wait_for()
    _picture(page, "mistake")
    page.keyboard.press("Escape")


def test_a_session_opens_in_the_browser_by_its_link(page: Page) -> None:
    row = _row(page, "board")
    row.hover()
    row.locator("[aria-label*='Open in the Browser']").click()
    asked = page.locator(".monaco-dialog-box", has_text="pages--board.localhost")
    asked.wait_for()
    _picture(page, "open")
    with page.expect_popup() as opening:
        asked.get_by_role("button", name="Open", exact=True).click()
    opening.value.get_by_role("heading", name="It works").wait_for()
    assert "code" not in opening.value.url, "the code stands in no history"
