"""The start page in chromium, as a person uses it: from `argosy web` to an open app.

Nothing it shows is read as HTML, nothing is loaded from elsewhere. ARGOSY_SCREENSHOTS=FOLDER keeps pictures.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from e2e_house import House

from argosy.client.client import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
EVIL = "<img src=x onerror=document.title=666>"
APP = f"""\
title = "Page {EVIL}"
about = "A page. {EVIL}"
listens = "port"
ready = "/"
command = '''
printf '%s\\033]0;evil\\007\\033[31mred\\033[0m\\n' "{EVIL}"
cd "$ARGOSY_APP_DIR" && echo "<h1>it is open</h1>" >index.html
exec python3 -m http.server --bind 127.0.0.1 "$ARGOSY_APP_PORT"
'''
"""

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]


class Web:
    """`argosy web` of a house, and what its pages did wrong."""

    def __init__(self, house: House, browser: Browser) -> None:
        self.house, self._browser = house, browser
        self.wrong: list[str] = []
        self.process = house.spawn("web", "--no-browser", env={"USER": "ann"})
        self.address = self._line().partition("#")[0]

    def _line(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b"#code=" in line:
                return line.decode().strip()
        raise AssertionError("argosy web said no address")

    def page(self, name: str = "", **options: Any) -> Page:
        """A page of a browser of its own, signed in as `name` ("": not signed in)."""
        context = self._browser.new_context(**{"viewport": {"width": 1100, "height": 760}, **options})
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))
        address = self.address
        if name:
            with Client(env=self.house.env) as client:
                address += f"#code={client.make_login_code(name).code}"
        page.goto(address)
        if name:
            page.get_by_role("heading", name="Start a session").wait_for()
        return page

    def _hear(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:  # refusals of ours
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not re.match(r"(http://([a-z0-9-]+--)?[a-z0-9-]+\.localhost[:/]|data:|blob:)", url):
            self.wrong.append(f"asked {url}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    from playwright.sync_api import sync_playwright

    house = House()
    house.file("state/apps/page.toml", APP)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            made = Web(house, browser)
            with Client(env=house.env) as client:
                client.add_user("ben", password="a long password of ben's")
                client.set_member("ben", "member", project="default")
            yield made
            made.close()
            browser.close()
    finally:
        house.run("session", "end", "-y", "board", ok=False)
        house.close()


@pytest.fixture(autouse=True)
def _nothing_wrong(web: Web) -> Iterator[None]:
    web.wrong.clear()
    yield
    assert web.wrong == []


def _picture(page: Page, name: str) -> None:
    if folder := os.environ.get("ARGOSY_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/start-{name}.png")


def _row(page: Page, name: str) -> Any:
    return page.locator("#rows li", has=page.locator("strong", has_text=re.compile(f"^{name}$")))


def test_a_session_is_started_opened_shared_rested_and_ended(web: Web) -> None:
    page = web.page("ann")
    page.get_by_text("It rests when nobody uses it").wait_for()
    _picture(page, "empty")
    page.get_by_label("App").select_option("page")
    page.get_by_label("Name").fill("board")
    page.get_by_label("Rest when unused for").select_option("1800")
    page.get_by_role("button", name="Start", exact=True).click()
    row = _row(page, "board")
    row.get_by_role("button", name="Open: board").wait_for()
    row.get_by_text("rests in 30 min").wait_for()
    assert page.title() == "Argosy", "no name is read as HTML"
    row.get_by_text(f"Page {EVIL}").wait_for()
    page.get_by_text(f"A page. {EVIL}").wait_for()
    _picture(page, "running")

    with page.expect_popup() as opening:
        row.get_by_role("button", name="Open: board").click()
    opened = opening.value
    opened.get_by_role("heading", name="it is open").wait_for()
    assert re.fullmatch(r"http://page--board\.localhost:\d+/", opened.url)
    assert opened.evaluate("window.opener") is None and opened.evaluate("document.referrer") == ""
    opened.close()

    row.get_by_role("button", name="Log: board").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(f"{EVIL}red").wait_for()
    _picture(page, "log")
    page.keyboard.press("Escape")

    row.get_by_role("button", name="Share: board").click()
    dialog.get_by_label("Who").fill("ben")
    dialog.get_by_role("button", name="Share").click()
    dialog.get_by_text("for 8 h").wait_for()
    _picture(page, "share")
    page.keyboard.press("Escape")
    other = web.page("ben")
    theirs = _row(other, "board")
    theirs.get_by_role("button", name="Open: board").wait_for()
    assert theirs.get_by_role("button", name="End: board").count() == 0
    other.context.close()

    row.get_by_role("button", name="Rest: board").click()
    row.get_by_text("resting").wait_for()
    row.get_by_role("button", name="End: board").click()
    dialog.get_by_role("button", name="End it").click()
    row.wait_for(state="detached")
    page.context.close()


def test_changes_elsewhere_are_shown_and_a_quiet_page_asks_nothing(web: Web) -> None:
    page = web.page("ann")
    web.house.run("session", "start", "terminal", "--name", "shell", "--detach")
    row = _row(page, "shell")
    row.get_by_text("running").wait_for()
    row.get_by_role("button", name="Rest: shell").focus()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6000)
    assert len(asked) <= 3, asked
    web.house.run("session", "end", "-y", "shell")
    row.wait_for(state="detached")
    page.context.close()


def test_signing_in_with_a_password_and_what_refusals_say(web: Web) -> None:
    page = web.page()
    page.get_by_label("User").fill("ben")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("wrong").wait_for()
    _picture(page, "refused")
    page.get_by_label("Password").fill("a long password of ben's")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Start a session").wait_for()
    page.get_by_label("GPUs").fill("A100:x")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("alert").get_by_text("GPUs are written as MODEL:COUNT").wait_for()
    page.get_by_label("GPUs").fill("NoSuch:1")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("alert").get_by_text("NoSuch").wait_for()
    _picture(page, "error")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.context.close()


def test_a_command_line_is_let_in(web: Web) -> None:
    page = web.page("ann")
    with Client(env=web.house.env) as client:
        device = client.login_device(f"gpu-box {EVIL}")
    page.get_by_text("Let a command line in").click()
    page.get_by_label("Code that").fill(device.code)
    page.get_by_role("button", name="Look").click()
    page.get_by_role("dialog").get_by_text("gpu-box").wait_for()
    _picture(page, "device")
    page.get_by_role("button", name="Let it in").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    with Client(env=web.house.env) as client:
        answer = client.login_device_wait(device.secret)
    assert answer.login is not None and answer.login.user == "ann"
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 375])
def test_it_can_be_read_and_used_by_keys(web: Web, scheme: str, width: int) -> None:
    page = web.page("ann", color_scheme=scheme, viewport={"width": width, "height": 760})
    _picture(page, f"{scheme}-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off"
    low = page.evaluate(CONTRAST)
    assert not low, low
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    order = [one for one in seen if one in ("out", "app", "name", "gpus", "idle", "go")]
    assert order[:6] == ["out", "app", "name", "gpus", "idle", "go"], seen
    names = page.evaluate(NAMELESS)
    assert not names, "everything has a name"
    page.context.close()


def test_no_other_site_may_frame_it_or_read_it(web: Web) -> None:
    page = web.page("ann")
    app = page.context.new_page()
    web.wrong.clear()
    app.route(
        "http://evil.localhost/**",
        lambda route: route.fulfill(content_type="text/html", body="<body></body>"),
    )
    app.goto("http://evil.localhost/")
    outcome = app.evaluate(FOREIGN, web.address)
    assert outcome == {"frame": "empty", "get": "refused", "post": "refused", "socket": "closed"}
    web.wrong.clear()  # the browser says what it has refused
    page.context.close()


NAMELESS = """[...document.querySelectorAll("input,select,button")].filter((each) => each.checkVisibility())
  .filter((one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).map((one) => one.id)"""
FOREIGN = """async (address) => {
  const told = {};
  const frame = document.createElement("iframe");
  frame.src = address;
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
  told.frame = frame.contentDocument === null ? "empty" : "open";
  const ask = (method) => fetch(address + "v1/sessions", {method, credentials: "include"})
    .then(() => "read", () => "refused");
  told.get = await ask("GET");
  told.post = await ask("POST");
  told.socket = await new Promise((done) => {
    const socket = new WebSocket(address.replace("http", "ws") + "v1/apps/door");
    socket.onopen = () => done("open");
    socket.onerror = () => done("closed");
  });
  return told;
}"""
#: Texts whose contrast to what is behind them is below 4.5.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (each) => {
    for (let one = each; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const each of document.querySelectorAll("h1,h2,p,span,small,label,button,code,summary,strong")) {
    if (!each.checkVisibility() || !each.textContent.trim()) continue;
    const pair = [light(parse(getComputedStyle(each).color)), light(behind(each))].sort((x, y) => y - x);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) low.push(each.tagName + " " + each.textContent.trim().slice(0, 20) + ratio.toFixed(2));
  }
  return low;
}"""
