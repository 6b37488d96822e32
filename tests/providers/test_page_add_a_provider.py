"""The code of `docs/add-a-provider.md`, put together as it stands, passes the suite for every provider."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from argosy.infra import border
from argosy.infra.provider import Provider, Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.testing.builders import a_choice, a_claim, a_node, a_shape, an_offer
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.virtual_time import run_virtual

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-provider.md"
KEY = "s3cr3t-key-of-shed"
ROOM = 5


def files_of_page() -> dict[str, str]:
    """Each block of Python goes to the file that its first line names, one behind the other."""
    files: dict[str, str] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        first, _, rest = block.partition("\n")
        name = first.removeprefix("# ")
        files[name] = files.get(name, "") + rest + "\n"
    return files


class Shed(ThreadingHTTPServer):
    """The four calls of the company's API. Machines start at once; the knobs are attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.machines: dict[str, dict[str, Any]] = {}
        self.loses_reply = False
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        return  # a reply that was lost on purpose

    def act(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        name = path.rpartition("/")[2]
        if (method, path) == ("GET", "/types"):
            return 200, [{"name": "small", "cpus": 4, "memory_gb": 16, "usd": 0.12, "free": ROOM}]
        if (method, path) == ("GET", "/machines"):
            return 200, list(self.machines.values())
        if (method, path) == ("POST", "/machines"):
            if body["name"] in self.machines:
                return 409, "it exists"
            if len(self.machines) >= ROOM:
                return 507, "all machines are let"
            self.machines[body["name"]] = {**body, "state": "running", "ip": "127.0.0.1"}
            return 201, None
        return (204, None) if self.machines.pop(name, None) else (404, "no such machine")


class Answers(BaseHTTPRequestHandler):
    server: Shed

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.headers["Authorization"] != f"Bearer {KEY}":
            status, told = 401, "who are you?"
        else:
            status, told = self.server.act(self.command, self.path, body)
        if self.server.loses_reply and self.command != "GET":
            self.server.loses_reply = False
            self.close_connection = True
            return
        data = json.dumps(told).encode() if told is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        return


#: Needs machines with sshd, and real time: the tests of `infra.ssh` have both.
REACH = "reach_leads_to_the_agent_and_nowhere_else"


class Subject:
    gaps: ClassVar[dict[str, str]] = {}
    secrets = (KEY,)

    def __init__(self, root: Path, shed: Shed) -> None:
        self.shed = shed
        url = f"http://127.0.0.1:{shed.server_port}"
        environ = {"SHED_API_KEY": KEY, "SHED_URL": url}
        create = importlib.import_module("argosy_shed").create
        self.provider: Provider = create(
            Setting(root=root, clock=SystemClock(), ids=SystemIds(), environ=environ)
        )

    def claim(self, count: int = 1) -> Claim:
        offer = an_offer(provider="shed", capacity=Capacity.ON_DEMAND, shape=a_shape(instance_type="small"))
        return a_claim(count=count, choice=a_choice(offer=offer))

    def too_large(self) -> Claim:
        return self.claim(count=ROOM + 1)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def truth(self) -> set[str]:
        return {
            each["labels"]["argosy-claim"]
            for each in self.shed.machines.values()
            if "argosy-claim" in each["labels"]
        }

    def machines(self, claim_id: str) -> int:
        return sum(
            each["labels"].get("argosy-claim") == claim_id and each["state"] == "running"
            for each in self.shed.machines.values()
        )

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        self.shed.loses_reply = True
        with pytest.raises(border.Transient):
            await call()

    async def preempt(self, claim_id: str) -> None:
        for each in self.shed.machines.values():
            if each["labels"].get("argosy-claim") == claim_id:
                each["state"] = "taken"

    async def make_foreign(self) -> None:
        self.shed.act("POST", "/machines", {"name": "theirs", "labels": {}})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("page")
    for name, text in files_of_page().items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, "utf-8")
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.startswith("argosy_shed")]:
        del sys.modules[name]


@pytest.fixture
def shed() -> Iterator[Shed]:
    made = Shed()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("case", [case for case in CASES if case_name(case) != REACH], ids=case_name)
def test_the_provider_of_the_page_passes_the_suite(
    case: Case, package: Path, shed: Shed, tmp_path: Path
) -> None:
    try:
        run_virtual(hold(case, Subject(tmp_path, shed)))
    except NotApplicable as gap:
        pytest.skip(str(gap))


def test_a_node_that_is_gone_is_not_reached(package: Path, shed: Shed, tmp_path: Path) -> None:
    provider = Subject(tmp_path, shed).provider
    with pytest.raises(border.Unreachable, match="clm-0-0 is not there any more"):
        run_virtual(provider.reach(a_node(claim_id="clm-0", provider="shed", address="clm-0-0")))


def test_a_wrong_key_and_a_dead_service_say_what_to_do(package: Path, shed: Shed, tmp_path: Path) -> None:
    create = importlib.import_module("argosy_shed").create
    url = f"http://127.0.0.1:{shed.server_port}"
    for environ, what in (
        ({"SHED_URL": url, "SHED_API_KEY": "wrong"}, "Shed does not accept SHED_API_KEY"),
        ({"SHED_URL": "http://127.0.0.1:9"}, "Shed does not answer: "),
    ):
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ)
        (finding,) = run_virtual(create(setting).check())
        assert not finding.ok and finding.what.startswith(what)
        assert finding.hint == "set SHED_API_KEY to a key of https://shed.example/keys"
