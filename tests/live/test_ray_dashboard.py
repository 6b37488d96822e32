"""The example of a Ray cluster with a real Ray: in a real browser its dashboard is an app of the cluster.

`ARGOSY_RAY=/path/to/bin/ray pytest tests/live/test_ray_dashboard.py`; ARGOSY_SCREENSHOTS=FOLDER keeps a
picture.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "e2e"))

from e2e_house import House  # noqa: E402

PROGRAM = os.environ.get("ARGOSY_RAY", "")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
LONG_MS = 180_000.0
pytestmark = [
    pytest.mark.skipif(not PROGRAM, reason="NO REAL RAY WAS TESTED: ARGOSY_RAY names no program `ray`"),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.timeout(600),
]


def test_the_dashboard_of_the_example_is_an_app() -> None:
    from playwright.sync_api import sync_playwright

    house = House()
    house.env["PATH"] = f"{Path(PROGRAM).parent}:{house.env['PATH']}"
    try:
        house.run("launch", "-y", "-d", "-c", "ray", "--env", "PORT=6395", "--env", "DASHBOARD=8295",
                  REPO / "examples" / "ray" / "cluster.yaml")  # fmt: skip
        house.wait_job("ray", 1, "running")
        alive = "ray list nodes --address http://127.0.0.1:8295 --filter state=ALIVE | grep -c ALIVE || true"
        house.wait("two nodes", lambda: int(house.run("ssh", "ray", "--", alive).stdout.split()[-1]) >= 2)
        opening = house.spawn("port-forward", "ray", "0:8295", "--open")
        assert opening.stdout is not None
        address = opening.stdout.readline().decode().strip()
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.set_default_timeout(LONG_MS)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            try:
                page.goto(address, wait_until="commit")
                page.wait_for_url(re.compile(r"localhost:\d+/(?!\.argosy)"), wait_until="commit")
                page.goto(re.sub(r"/\.argosy.*", "/#/cluster", address), wait_until="commit")
                page.get_by_text("ALIVE").nth(1).wait_for()
            finally:
                if folder := os.environ.get("ARGOSY_SCREENSHOTS"):
                    page.screenshot(path=f"{folder}/ray-dashboard.png")
                browser.close()
                opening.terminate()
                opening.wait(20)
        own = re.compile(r"https?://8295--ray\.localhost:\d+/|data:|blob:")
        assert [url for url in asked if not own.match(url)] == []
        assert len(asked) > 3
    finally:
        house.close()
