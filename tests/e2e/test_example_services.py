"""The services of `examples/serve`, as their files say: from Python, and from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest
from e2e_house import REPO, House

FROM_PYTHON = """
import json, time, urllib.request
import argosy as sky

task = sky.Task.from_yaml("examples/serve/chat.yaml")
name, _ = sky.serve.up(task, service_name="tiny")
while not (view := sky.serve.status(name)[0]).ready:
    time.sleep(0.1)
asked = {"stream": True, "max_tokens": 6, "messages": [{"role": "user", "content": "a replica"}]}
body = json.dumps(asked).encode()
request = urllib.request.Request(view.endpoint + "/v1/chat/completions", body)
with urllib.request.urlopen(request, timeout=90) as answer:
    assert answer.headers["content-type"] == "text/event-stream"
    events = [line[6:].strip() for line in answer.read().decode().splitlines() if line.startswith("data: ")]
said = "".join(json.loads(each)["choices"][0]["delta"]["content"] for each in events[:-1])
base = view.endpoint.partition("/s/")[0]
with urllib.request.urlopen(base + "/v1/models", timeout=90) as answer:
    models = [each["id"] for each in json.loads(answer.read())["data"]]
print(json.dumps({"name": name, "said": said.split(), "last": events[-1], "models": models}))
task.update_envs({"TOKEN_PAUSE_S": "0.01"})
sky.serve.update(task, name, mode="canary", canary=20)
while not (rollout := sky.serve.status(name)[0].rollout):
    time.sleep(0.1)
assert (rollout.new, rollout.strategy, rollout.steps) == (2, "canary", (200, 500, 1000)), rollout
sky.serve.rollback(name)
while sky.serve.status(name)[0].rollout.phase != "rolled-back":
    time.sleep(0.1)
assert sky.serve.scale(name, 2).wanted == 2
assert sky.serve.down(name).names == ("tiny",)
while sky.serve.status():
    time.sleep(0.1)
"""


def test_the_tiny_language_model_is_served_from_python(house: House) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROM_PYTHON],
        cwd=REPO,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + house.server_log()
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["name"] == "tiny" and told["last"] == "[DONE]" and told["models"] == ["tiny-markov"]
    assert told["said"][:2] == ["a", "replica"] and len(told["said"]) == 6


STAND_IN = """
import argparse, json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = argparse.ArgumentParser()
words.add_argument("--model")
words.add_argument("--tensor-parallel-size")
words.add_argument("--port", type=int)
given = words.parse_args()
said = {"choices": [{"message": {"content": os.environ["ARGOSY_SERVICE_REPLICA"]}}], "model": given.model}
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        data = b"" if self.path == "/health" else json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()
"""


@pytest.mark.nightly
def test_three_replicas_of_a_language_model_run_on_one_machine_at_one_port(house: House) -> None:
    """The file of a textbook; what a laptop lacks (cards, vLLM itself) is replaced, all else is as it is."""
    text = (REPO / "tests" / "spec" / "seeds" / "serve.yaml").read_text("utf-8")
    program = house.file("stand_in.py", STAND_IN)
    for old, new in (
        ("accelerators: A100:2", "cpus: 0.1"),
        ("pip install vllm", "true"),
        ("python -m vllm.entrypoints.openai.api_server", f"exec {sys.executable} {program}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    house.run("serve", "up", house.file("three.yaml", text))

    def view() -> dict[str, Any]:
        found = house._look(lambda client: client.services(), "serve", "status")["services"]
        return dict(next(each for each in found if each["name"] == "chat-service"))

    house.wait("all three are ready", lambda: view()["ready"] == 3)
    url = house.run("serve", "endpoint", "chat-service").stdout.strip()
    asked = json.dumps(
        {"model": "example/chat-70b", "messages": [{"role": "user", "content": "hi"}]}
    ).encode()
    who = set()
    for _ in range(12):
        with urllib.request.urlopen(f"{url}/v1/chat/completions", asked, timeout=90) as answer:
            told = json.loads(answer.read())
        assert told["model"] == "example/chat-70b"
        who.add(told["choices"][0]["message"]["content"])
    assert len(who) == 3, "each of the three has answered"
    house.run("serve", "down", "chat-service", "-y")
    house.wait("all is gone", lambda: not house.processes("stand_in.py"))


@pytest.mark.nightly
@pytest.mark.timeout(500)
def test_the_classifier_tells_digits_apart(fresh_house: House) -> None:
    """Its setup installs ONNX Runtime on the node and learns there."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    fresh_house.run("serve", "up", REPO / "examples" / "serve" / "classifier.yaml", "--detach")
    deadline_s = time.monotonic() + 400
    while not fresh_house.json("serve", "status")["services"][0]["ready"]:
        assert time.monotonic() < deadline_s, fresh_house.run("explain", "digits").stdout
        time.sleep(2)
    endpoint = fresh_house.run("serve", "endpoint", "digits").stdout.strip()
    rows = (data.data[1500:1510] / 16).tolist()
    asked = {"instances": rows, "parameters": {"outputs": ["label"]}}
    request = urllib.request.Request(f"{endpoint}/invocations", json.dumps(asked).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.loads(answer.read())["predictions"]
    right = sum(a == b for a, b in zip(found, data.target[1500:1510].tolist(), strict=True))
    assert right >= 7, found
    fresh_house.run("serve", "down", "digits", "-y")
