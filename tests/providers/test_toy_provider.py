"""A provider from outside: one folder with manifest, driver, prices and an entry point, and nothing else.

It shows in `check`, `plan`, `gpus` and `catalog`, is refreshed, and runs a job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

TOY = {
    "toy_cloud/__init__.py": """
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="toy",
    title="a toy",
    capabilities=Capabilities(owned=True, multi_node=True, stop=True),
    prices=PriceSource(keys=("TOY_KEY",)),
    enabled_by_default=True,
)

def create(setting):
    from toy_cloud.provider import ToyProvider
    return ToyProvider(setting)
""",
    "toy_cloud/provider.py": '''
from msgspec.structs import replace
from argosy.infra.boot import agent_zipapp
from argosy.infra.provider import Diagnostic
from argosy.providers.local.agents import ZipappAgents
from argosy.providers.local.provider import LocalProvider
from toy_cloud import MANIFEST

class ToyProvider(LocalProvider):
    """Nodes like those of this machine, in a region of its own."""

    def __init__(self, setting):
        agents = lambda: ZipappAgents(agent_zipapp(setting.root / "agent"), setting.environ)
        super().__init__(setting.root, clock=setting.clock, agents=agents, price_micro_usd=1_230_000)
        self.manifest = MANIFEST

    async def check(self):
        return [Diagnostic(provider="toy", ok=True, what="the toy is wound up")]

    async def quote(self, want):
        return [replace(offer, region="nursery") for offer in await super().quote(want)]
''',
    "toy_cloud/prices.py": """
import msgspec
from argosy.catalog.keep import Fetched
from argosy.model.offer import Capacity, Shape

URL = "http://127.0.0.1:9"

class Row(msgspec.Struct):
    name: str
    usd: float

def fetch(wire, book):
    h100 = book.accelerator("H100")
    rows = []
    for row in wire.get("/toys", list[Row]):
        shape = Shape(instance_type=row.name, cpus_milli=8000, memory_bytes=64 << 30, accelerator=h100.name,
                      accelerators_milli=1000, accelerator_memory_bytes=h100.memory_bytes)
        rows.append(book.row(shape, "nursery", row.usd, source="toy"))
    return Fetched(provider=book.provider, rows=tuple(rows), capacities=frozenset({Capacity.ON_DEMAND}))
""",
    "toy_cloud-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy-cloud\nVersion: 1.0\n",
    "toy_cloud-1.0.dist-info/entry_points.txt": "[argosy.providers]\ntoy = toy_cloud\n",
}


class Prices(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer k" and self.path == "/toys"
        data = b'[{"name": "teddy", "usd": 0.77}]' if known else b"{}"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


class Person:
    """Types commands on a machine where the toy is installed."""

    def __init__(self, root: Path, prices: str) -> None:
        site = root / "site"
        for name, text in TOY.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")} | {
            "ARGOSY_HOME": str(root / "state"),
            "ARGOSY_PRICES_OF_TOY": prices,
            "PYTHONPATH": str(site),
            "TOY_KEY": "k",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "argosy.cli", *words],
            env=self._env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def person() -> Iterator[Person]:
    service = HTTPServer(("127.0.0.1", 0), Prices)
    threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="toy-", ignore_cleanup_errors=True) as folder:
        made = Person(Path(folder), f"http://127.0.0.1:{service.server_port}")
        try:
            yield made
        finally:
            made.run("down", "--all", "--yes")
            made.run("server", "stop")
            service.shutdown()
            service.server_close()


def test_a_provider_is_one_folder(person: Person) -> None:
    assert "the toy is wound up" in person.run("check")
    assert "the toy is wound up" in person.run("check", "toy")
    plan = person.run("plan", "--infra", "toy", "--", "true")
    assert "toy" in plan and "nursery" in plan and "1.23" in plan
    assert "1 price (before: 0)" in person.run("catalog", "refresh", "toy")
    (age,) = [each for each in person.json("catalog", "show")["providers"] if each["provider"] == "toy"]
    assert age["refreshable"] and age["source"] == "refreshed"
    (row,) = [each for each in person.json("gpus", "H100")["gpus"] if each["provider"] == "toy"]
    assert (row["instance_type"], row["on_demand"]["micro_usd"]) == ("teddy", 770_000)
    said = person.run("launch", "-c", "box", "--infra", "toy", "--", "echo played on $ARGOSY_NODE_RANK")
    assert "played on 0" in said
    (cluster,) = person.json("status")["clusters"]
    assert "toy" in json.dumps(cluster)
