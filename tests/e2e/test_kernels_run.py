"""Remote kernels with real clients of Jupyter: nbclient, JupyterLab in chromium, a restart, a lost session.

ARGOSY_JUPYTER names a Python that has jupyterlab and nbclient.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_house import PATIENCE_S, REPO, House

from argosy.agent import sandbox
from argosy.testing.ports import free_port

JUPYTER = os.environ.get("ARGOSY_JUPYTER", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
GOOD, GAPS = sandbox.levels()
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not JUPYTER, reason="ARGOSY_JUPYTER names no Python with jupyterlab and nbclient"),
    pytest.mark.skipif("sandbox" not in GOOD, reason=GAPS.get("sandbox", "")),
]
NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "argosy", "display_name": "Argosy", "language": "python"}},
    "cells": [
        {
            "cell_type": "code",
            "id": f"c{at}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": text,
        }
        for at, text in enumerate(
            ("import os\nprint(6 * 7, os.environ['HOME'])", "x = input  # a name\nprint('é' * 3)", "1/0")
        )
    ],
}
RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=60, kernel_name="argosy", allow_errors=True, startup_timeout=120).execute()
told = [[one.get("text", "") or one.get("ename", "") for one in cell.outputs] for cell in book.cells]
print(json.dumps(told))
"""
LOSE = """
import sys, time
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="argosy", startup_timeout=120, stderr=open(sys.argv[1], "w"))
client.execute_interactive("print(1)", timeout=60, output_hook=lambda message: None)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(600):
    if not manager.is_alive(): break
    time.sleep(0.1)
print("alive" if manager.is_alive() else "ended", flush=True)
manager.shutdown_kernel(now=True)
"""


@pytest.fixture(scope="module")
def jupyter() -> Iterator[House]:
    """A house whose Jupyter has our kernel, with its packages installed already."""
    house = House()
    house.env["JUPYTER_DATA_DIR"] = str(house.root / "jupyter")
    house.env["HOME"] = str(house.root)
    try:
        house.run("kernel", "install")
        house.run("session", "start", "kernel", "--name", "first")
        house.run("session", "end", "-y", "first")
        yield house
    finally:
        house.close()


def _write(house: House, name: str) -> Path:
    return house.file(name, json.dumps(NOTEBOOK))


def _sessions(house: House) -> list[str]:
    return [each["name"] for each in house.json("session", "ls")["sessions"]]


def test_nbclient_runs_a_notebook_in_a_session_which_ends_with_it(jupyter: House) -> None:
    book = _write(jupyter, "book.ipynb")
    done = subprocess.run(
        [JUPYTER, "-c", RUN, book], env=jupyter.env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [["42 /home/work\n"], ["ééé\n"], ["ZeroDivisionError"]]
    jupyter.wait("the session has ended", lambda: not _sessions(jupyter))


def test_the_example_runs_as_its_page_says(jupyter: House) -> None:
    book = REPO / "examples" / "sessions" / "squares.ipynb"
    out = jupyter.root / "out.ipynb"
    words = [
        JUPYTER,
        "-m",
        "jupyter",
        "execute",
        f"--output={out}",
        "--timeout=60",
        "--startup_timeout=120",
        book,
    ]
    done = subprocess.run(words, env=jupyter.env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]" in out.read_text(encoding="utf-8")


def test_a_kernel_whose_machine_is_lost_says_so(jupyter: House) -> None:
    said = jupyter.root / "kernel.err"
    process = subprocess.Popen(
        [JUPYTER, "-c", LOSE, said], env=jupyter.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", said.read_text()
    (name,) = _sessions(jupyter)
    jupyter.run("session", "end", "-y", name)
    out, _ = process.communicate("\n", timeout=3 * PATIENCE_S)
    assert out == "ended\n"
    text = said.read_text()
    assert f"error: session `{name}`" in text and "\nhint: " in text, text


@pytest.mark.skipif(
    not CHROMIUM or importlib.util.find_spec("playwright") is None,
    reason="chromium and playwright are not there",
)
def test_jupyterlab_runs_the_same_notebook_and_restarts(jupyter: House) -> None:
    from playwright.sync_api import sync_playwright

    _write(jupyter, "lab/book.ipynb")
    port = free_port()
    words = [
        *(JUPYTER, "-m", "jupyterlab", "--allow-root", "--no-browser", f"--port={port}"),
        *("--IdentityProvider.token=", f"--ServerApp.root_dir={jupyter.root}/lab"),
        *("--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
    ]
    log = (jupyter.root / "lab.log").open("wb")
    server = subprocess.Popen(words, env=jupyter.env, stdout=log, stderr=log)
    try:
        jupyter.wait("JupyterLab listens", lambda: _listens(port))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(120_000)
            page.goto(f"http://127.0.0.1:{port}/lab/tree/book.ipynb")
            page.get_by_text("Argosy").first.wait_for()
            page.locator(".jp-Cell").first.click()
            page.keyboard.press("Shift+Enter")
            output = page.locator(".jp-OutputArea-output")
            output.filter(has_text="42 /home/work").wait_for()
            page.locator("[data-jp-item-name='restart']").first.click()
            page.locator(".jp-Dialog .jp-mod-accept").click()
            page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
            page.locator(".jp-Cell").nth(1).click()
            page.keyboard.press("Shift+Enter")
            output.filter(has_text="ééé").wait_for()
            if folder := os.environ.get("ARGOSY_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/kernel-lab.png")
            browser.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
