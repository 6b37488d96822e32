"""`--json` of every command: one shape, all fields, units in names. Goldens in `golden/`.

ARGOSY_UPDATE_GOLDEN=1 pytest tests/cli/test_json_shapes.py      writes them anew
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from command_line import CommandLine

from argosy.api.costs import BudgetView
from argosy.api.events import EventView
from argosy.cli.main import cli
from argosy.client.tasks import Task
from argosy.model import folders as folder_rules
from argosy.model.routes import GatewayCounters, ReplicaCounters, ServiceCounters
from argosy.testing.fake_server import FakeServer
from argosy.testing.shared_answers import STARTED_MS

GOLDEN = Path(__file__).parent / "golden"
TASK = ("--", "echo", "hi")
#: Name of the golden file: the words.
COMMANDS: dict[str, tuple[str, ...]] = {
    "budget get": ("budget", "get", "default"),
    "budget list": ("budget", "list"),
    "budget set": ("budget", "set", "default", "100"),
    "cancel": ("cancel", "dev", "1", "-y"),
    "catalog refresh": ("catalog", "refresh", "aws"),
    "catalog show": ("catalog", "show"),
    "check": ("check",),
    "checkpoints get": ("checkpoints", "get", "1", "saved"),
    "checkpoints ls": ("checkpoints", "ls", "1"),
    "checkpoints rm": ("checkpoints", "rm", "1", "--all", "-y"),
    "convert": ("convert", "--from", "slurm", "job.sbatch"),
    "cost-report": ("cost-report",),
    "cost-report by": ("cost-report", "--by", "day"),
    "events": ("events",),
    "exec": ("exec", "dev", "-d", *TASK),
    "explain": ("explain", "dev", "1"),
    "files build": ("files", "build"),
    "folder accept": ("folder", "accept", "offered"),
    "folder clone": ("folder", "clone", "train", "train-2"),
    "folder create": ("folder", "create", "new", "--quota", "200GB"),
    "folder download": ("folder", "download", "train/model", "got"),
    "folder download tree": ("folder", "download", "train", "got", "-r"),
    "folder info": ("folder", "info", "train"),
    "folder invite": ("folder", "invite", "train", "cho"),
    "folder ls": ("folder", "ls", "--trash"),
    "folder ls files": ("folder", "ls", "train/"),
    "folder quota": ("folder", "quota", "train", "500GB"),
    "folder restore": ("folder", "restore", "old"),
    "folder rm": ("folder", "rm", "train"),
    "folder rm file": ("folder", "rm", "train/model"),
    "folder rm forever": ("folder", "rm", "old", "--forever", "-y"),
    "folder share": ("folder", "share", "train", "project:vision", "rw"),
    "folder transfer": ("folder", "transfer", "train", "bob"),
    "folder unshare": ("folder", "unshare", "train", "bob"),
    "folder upload": ("folder", "upload", "train", "worker.yaml", "in/"),
    "folder volumes": ("folder", "volumes", "--add", "nas", "/mnt/nas", "--on-nodes", "/nas"),
    "gpus": ("gpus",),
    "jobs cancel": ("jobs", "cancel", "1", "-y"),
    "jobs graph": ("jobs", "graph", "7"),
    "jobs retry": ("jobs", "retry", "7/1"),
    "jobs pool apply": ("jobs", "pool", "apply", "warm", "worker.yaml", "--workers", "2"),
    "jobs pool down": ("jobs", "pool", "down", "warm", "-y"),
    "jobs pool status": ("jobs", "pool", "status"),
    "jobs launch": ("jobs", "launch", "-d", *TASK),
    "jobs logs": ("jobs", "logs", "1"),
    "jobs queue": ("jobs", "queue"),
    "kubernetes install": ("kubernetes", "install"),
    "kubernetes manifest": ("kubernetes", "manifest", "--namespace", "ml"),
    "launch": ("launch", "-c", "new", "-d", "-y", *TASK),
    "launch dryrun": ("launch", "--dryrun", *TASK),
    "launch followed": ("launch", "-c", "new", "-y", *TASK),
    "gateway status": ("gateway", "status", "--control", "control.sock"),
    "logs": ("logs", "dev", "1"),
    "offers": ("offers", *TASK),
    "plan": ("plan", *TASK),
    "plan pipeline": ("plan", "two.yaml"),
    "pool add": ("pool", "add", "lab", "--hosts", "gpu1"),
    "pool cordon": ("pool", "cordon", "gpu1"),
    "pool drain": ("pool", "drain", "gpu1"),
    "pool groups": ("pool", "groups"),
    "pool hosts": ("pool", "hosts"),
    "pool remove": ("pool", "remove", "gpu1", "-y"),
    "pool uncordon": ("pool", "uncordon", "gpu1"),
    "pool map": ("pool", "map"),
    "pool presets": ("pool", "presets"),
    "pool top": ("pool", "top"),
    "queue": ("queue", "dev"),
    "queue tree": ("queue", "--tree"),
    "quota apply": ("quota", "apply", "-y", "quota.yaml"),
    "quota explain": ("quota", "explain", "acme/vision"),
    "quota export": ("quota", "export"),
    "quota get": ("quota", "get"),
    "quota set": ("quota", "set", "acme/new", "--limit", "gpus=4,memory=64GB"),
    "regions": ("regions",),
    "server prune": ("server", "prune", "--dry-run"),
    "server status": ("server", "status"),
    "session apps": ("session", "apps"),
    "session end": ("session", "end", "lab", "-y"),
    "session idle": ("session", "idle", "lab", "--idle", "2h"),
    "session ls": ("session", "ls", "--all"),
    "session snapshot": ("session", "snapshot", "lab"),
    "session snapshots": ("session", "snapshots"),
    "session snooze": ("session", "snooze", "lab"),
    "session start": ("session", "start", "jupyter", "--name", "lab", "--gpus", "A100:0.5"),
    "session stop": ("session", "stop", "lab"),
    "status": ("status", "-a"),
    "serve down": ("serve", "down", "chat", "-y"),
    "serve endpoint": ("serve", "endpoint", "chat"),
    "serve key": ("serve", "key", "chat"),
    "serve price": ("serve", "price", "chat", "--input", "0.25"),
    "serve promote": ("serve", "promote", "chat"),
    "serve rollback": ("serve", "rollback", "chat"),
    "serve scale": ("serve", "scale", "chat", "3"),
    "serve status": ("serve", "status"),
    "serve up": ("serve", "up", "service.yaml"),
    "serve update": ("serve", "update", "chat", "service.yaml"),
    "storage cp": ("storage", "cp", "-r", "argosy://data/a", "got"),
    "storage create": ("storage", "create", "more"),
    "storage delete": ("storage", "delete", "data", "--all", "-y"),
    "storage du": ("storage", "du"),
    "storage key": ("storage", "key", "ann"),
    "storage ls": ("storage", "ls", "argosy://data/"),
    "storage mv": ("storage", "mv", "argosy://data/b", "argosy://data/c"),
    "storage rm": ("storage", "rm", "-r", "argosy://data/a"),
    "storage transfer": ("storage", "transfer", "s3://a", "gs://b", "--dryrun"),
    "storage transfers": ("storage", "transfers"),
    "storage sync": ("storage", "sync", "argosy://data/a", "got", "--dryrun"),
    "version": ("version",),
    "volumes apply": ("volumes", "apply", "volume.yaml"),
    "volumes delete": ("volumes", "delete", "claims", "train", "-y"),
    "volumes ls": ("volumes", "ls"),
    "whoami": ("whoami",),
    "secret ls": ("secret", "ls"),
    "audit ls": ("audit", "ls"),
    "audit verify": ("audit", "verify"),
    "token create": ("token", "create", "ci"),
    "token ls": ("token", "ls"),
    "user add": ("user", "add", "ann", "--service"),
    "user ls": ("user", "ls"),
    "project ls": ("project", "ls"),
    "role ls": ("role", "ls"),
    "role members": ("role", "members"),
}


@pytest.fixture
def filled(argosy: CommandLine, server: FakeServer) -> CommandLine:
    server.add_cluster("dev")
    server.add_job(Task("t", run="exit 3", num_nodes=2).build(), "dev")
    server.add_job(Task("m", run="echo hi").build(), None)
    server.events.append(
        EventView(seq=1, at_ms=STARTED_MS, subject="clu-1", code="launched", text="asked for", name="dev")
    )
    server.budgets["default"] = BudgetView(
        project="default",
        monthly_micro_usd=5,
        alert_pct=80,
        hard_stop=False,
        month="2023-11",
        spent_micro_usd=1,
    )
    (argosy.folder / "job.sbatch").write_text("#!/bin/bash\n#SBATCH --nodes=2\nsrun hostname\n")
    (argosy.folder / "two.yaml").write_text("name: p\n---\nname: a\nrun: x\n---\nname: b\nrun: y\n")
    (argosy.folder / "service.yaml").write_text("name: chat\nservice: {replicas: 2}\nrun: x\n")
    (argosy.folder / "worker.yaml").write_text("setup: x\n")
    (argosy.folder / "quota.yaml").write_text("queues:\n  acme:\n    limit: {gpus: 8}\n")
    argosy.good("quota", "set", "acme", "--limit", "gpus=12")
    train = server.folders.add("train", {"model": b"weights", "step": b"7"})
    server.folders.rows["train"] = folder_rules.shared(train, "bob", "rw")
    old = server.folders.add("old")
    server.folders.rows["old"] = folder_rules.trashed(old, STARTED_MS)
    offered = folder_rules.invited(
        server.folders.add("offered", owner="bob"), "ada", "ro", by="bob", until_ms=STARTED_MS + 1
    )
    server.folders.rows["offered"] = offered
    (argosy.folder / "volume.yaml").write_text("name: data\ntype: k8s-pvc\ninfra: k8s/lab\nsize: 100GB\n")
    argosy.good("volumes", "apply", "--name", "claims", "--type", "k8s-pvc", "--use-existing")
    server.buckets.held["data"] = {"a/x": b"one", "a/y": b"two", "b": b"three"}
    return argosy


@pytest.fixture
def gateway(filled: CommandLine) -> Iterator[None]:
    """A control socket that tells counters once."""
    replica = ReplicaCounters(id="job-1", revision="1", requests=3)
    service = ServiceCounters(id="svc-1", requests=3, replicas=[replica])
    body = msgspec.json.encode(GatewayCounters(generation=7, since_ms=5, services=[service]))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(filled.folder / "control.sock"))
        listening.listen()
        listening.settimeout(90)
        answering = threading.Thread(target=_tell, args=(listening, body))
        answering.start()
        yield
        answering.join()


def _tell(listening: socket.socket, body: bytes) -> None:
    with listening.accept()[0] as connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _commands(group: click.Group, path: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
        elif any("--json" in option.opts for option in command.params):
            yield f"{path}{name}"


#: A token is another one each time; `accept` and `open` become the process of the tunnel.
ELSEWHERE = {"serve tunnel token", "serve tunnel accept", "serve tunnel open"}


def test_every_command_with_json_has_a_golden() -> None:
    assert set(_commands(cli)) - COMMANDS.keys() == ELSEWHERE


def test_a_token_of_a_tunnel_and_its_line(argosy: CommandLine) -> None:
    words = ("serve", "tunnel", "token", "web", "--host", "web.example.org", "--json")
    made = json.loads(argosy.good(*words))
    assert made.keys() == {"name", "token", "line"}
    digest = hashlib.sha256(made["token"].encode()).hexdigest()
    assert made["line"].split() == ["web", digest, "web.example.org"]


def _with_compiler(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A compiler of this machine that writes the same program everywhere, and no other."""
    (folder / "bin").mkdir()
    (folder / "bin" / "cc").write_text("#!/bin/sh\nwhile [ $1 != -o ]; do shift; done\necho program > $2\n")
    (folder / "bin" / "cc").chmod(0o755)
    patch.setenv("PATH", str(folder / "bin"))
    patch.setattr("platform.machine", lambda: "x86_64")
    patch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_as_it_was(
    filled: CommandLine, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "gateway status":
        request.getfixturevalue("gateway")
    if name == "files build":
        _with_compiler(filled.folder, monkeypatch)
    first, *rest = COMMANDS[name]
    at = rest.index("--") if "--" in rest else len(rest)
    done = filled(first, *rest[:at], "--json", *rest[at:])
    text = done.out.replace(str(filled.folder), "FOLDER").replace(str(filled.server.socket), "SOCKET")
    text = re.sub(r'"(pid|memory_bytes)": \d+(,?)(?=\n *"started_ms"|\n *"listening")', r'"\1": 1\2', text)
    text = re.sub(r"pf-x86_64-[0-9a-f]{16}", "pf-x86_64-DIGEST", text)
    text = re.sub(r'"(version|client)": "\d[^"]*"', r'"\1": "0"', text)
    value = json.loads(text)
    if name == "convert":  # what it says has goldens of its own
        value = sorted(value)
    path = GOLDEN / f"{name.replace(' ', '-')}.json"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    assert value == json.loads(path.read_text()), done.err
