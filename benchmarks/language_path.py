"""What a gateway spends on a request to a language model: key, limits, model, choice of a replica, usage.

    python benchmarks/language_path.py [--json FILE] [--seconds 6] [--rounds 3] [--peers FOLDER]

One worker, eight replicas (nginx, which answers at once with a usage), wrk with 32 connections and a key with
limits; prompts of 1 kB and 48 kB of random words. Requests per second of the worker's CPU time, the best of
the rounds, and how many times a peer's that of `prefix-aware` is. Peers look at no key and count no tokens.
Needs nginx and wrk; on a busy machine: `chrt -r 1 python benchmarks/language_path.py`. FOLDER is that of the
programs `vllm-router` and `smg` (virtual environment with these packages): they are measured beside it, in
turns, with the same requests and replicas.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
from machine import cpu_s, write

from argosy.model.routes import (
    KeyRoute,
    Policy,
    PolicyName,
    ReplicaRoute,
    RevisionRoute,
    RouteTable,
    ServiceRoute,
)

PORTS = tuple(range(18100, 18108))
LISTEN = 18200
SIZES = (1_000, 48_000)
RULES = ("least-outstanding", "prefix-aware")
KEY = "sk-benchmark"
ANSWER = (
    '{"usage": {"prompt_tokens": 250, "completion_tokens": 20}, "choices": [{"message": {"content": "hi"}}]}'
)
LISTED = '{"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm", "root": "m"}]}'
REQUESTS = """
local turn = 0
local fields = {["Authorization"] = "Bearer %s", ["Content-Type"] = "application/json"}
request = function()
  turn = turn %% #bodies + 1
  return wrk.format("POST", "/v1/chat/completions", fields, bodies[turn])
end
done = function(summary, latency, requests)
  io.write("DONE ", summary.requests, " ", summary.errors.status, "\\n")
end
"""


class Control(http.client.HTTPConnection):
    """The gateway's control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def table(rule: str, generation: int) -> RouteTable:
    replicas = tuple(ReplicaRoute(id=f"r{port}", address=f"127.0.0.1:{port}") for port in PORTS)
    key = KeyRoute(
        id="k",
        sha256=hashlib.sha256(KEY.encode()).hexdigest(),
        requests_per_minute=10**9,
        tokens_per_minute=10**12,
    )
    service = ServiceRoute(
        id="svc",
        name="m",
        prefix="/s/m",
        models=("m",),
        revisions=(RevisionRoute(id="v1", replicas=replicas),),
        policy=Policy(name=cast(PolicyName, rule)),
        keys=(key,),
    )
    return RouteTable(generation=generation, services=(service,))


def nginx(folder: Path) -> list[str]:
    """Replicas that are well and list their model: others take no replica that does not."""
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; default_type application/json; "
        f"location / {{ return 200 '{ANSWER}'; }} location = /v1/models {{ return 200 '{LISTED}'; }} "
        "location = /health { return 200 ''; } location ~ (server|model)_info { return 404; } }\n"
        for port in PORTS
    )
    (folder / "nginx.conf").write_text(
        f"worker_processes 1; daemon off; error_log /dev/null; pid {folder}/pid;\n"
        "events { worker_connections 2048; }\n"
        "http { access_log off; client_body_buffer_size 128k; keepalive_requests 1000000;\n" + servers + "}\n"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def script(folder: Path, size: int) -> Path:
    dice = random.Random(size)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(2, 9))) for _ in range(3000)]
    bodies = []
    for number in range(40):
        text = " ".join(dice.choices(words, k=size))[:size]
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
        bodies.append(f"bodies[{number + 1}] = {json.dumps(json.dumps(body))}")
    path = folder / f"{size}.lua"
    path.write_text("local bodies = {}\n" + "\n".join(bodies) + REQUESTS % KEY)
    return path


def measure(pid: int, path: Path, seconds: int, port: int = LISTEN) -> float:
    before = cpu_s(pid)
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", str(path), f"http://127.0.0.1:{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests, errors = map(int, said.rpartition("DONE ")[2].split()[:2])
    assert not errors, said
    return requests / (cpu_s(pid) - before)


def peers(folder: Path | None) -> dict[str, tuple[int, list[str]]]:
    """Port and command of those that are installed there, as their documents say to start them."""
    urls = [f"http://127.0.0.1:{port}" for port in PORTS]
    found: dict[str, tuple[int, list[str]]] = {}
    for number, (name, words) in enumerate(
        {
            "vllm-router round_robin": ["vllm-router", "--policy", "round_robin"],
            "vllm-router cache_aware": ["vllm-router", "--policy", "cache_aware"],
            "smg cache_aware": ["smg", "launch", "--policy", "cache_aware"],
        }.items()
    ):
        program = folder / words[0] if folder is not None else None
        if program is not None and program.exists():
            port = LISTEN + 10 + number
            more = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-host", "127.0.0.1"]
            more += ["--prometheus-port", str(port + 20), "--worker-urls", *urls]
            found[name] = (port, [str(program), *words[1:], *more])
    return found


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Its process id, once it answers the request that is measured."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert time.monotonic() < deadline and process.poll() is None, f"{command[0]} does not answer"
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "argosy.gateway", "--control", str(folder / "control.sock")]
        backend = subprocess.Popen(nginx(folder), stderr=subprocess.DEVNULL)
        gateway = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{LISTEN}", "--workers", "1"], stdout=subprocess.DEVNULL
        )
        try:
            while not (folder / "control.sock").exists():
                time.sleep(0.05)
            generation = 1
            others = peers(given.peers)
            with contextlib.ExitStack() as stack:
                pids = {
                    name: stack.enter_context(running(told, port)) for name, (port, told) in others.items()
                }
                for size in SIZES:
                    path, best = script(folder, size), dict[str, float]()
                    for _ in range(given.rounds):
                        for rule in RULES:
                            generation += 1
                            control = Control(folder / "control.sock")
                            control.request("PUT", "/table", msgspec.json.encode(table(rule, generation)))
                            assert control.getresponse().status == 200
                            rate = measure(gateway.pid, path, given.seconds)
                            best[rule] = max(best.get(rule, 0.0), rate)
                        for name, (port, _) in others.items():
                            rate = measure(pids[name], path, given.seconds, port)
                            best[name] = max(best.get(name, 0.0), rate)
                    for rule, rate in best.items():
                        rows.append({"bytes": size, "rule": rule, "requests_per_cpu_s": round(rate)})
                        print(f"{size} bytes, {rule}: {rate:.0f} requests per CPU second", flush=True)
                    for name in others:
                        rows[-len(best) + list(best).index(name)]["ours_to_it"] = round(
                            best["prefix-aware"] / best[name], 2
                        )
                        print(f"{size} bytes: {best['prefix-aware'] / best[name]:.2f} x {name}", flush=True)
        finally:
            gateway.terminate()
            backend.terminate()
            gateway.wait()
            backend.wait()
    write(given.json, rows=rows)


if __name__ == "__main__":
    main()
