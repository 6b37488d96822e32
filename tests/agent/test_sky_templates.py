"""What SkyPilot's task files call in `~/sky_templates/ray`, with a `ray` that keeps its cluster in files."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from argosy.agent import sky_templates

#: Words of each call go to `calls`; a node that is started is a file of `nodes`, named by its address.
RAY = """#!/usr/bin/env bash
here=$(dirname "$0")
[[ "$1 $2" == "list nodes" || "$1" == health-check ]] || echo "$*" >>"$here/calls"
case "$1 ${2:-}" in
  "--version ") echo "ray, version 2.60.0" ;;
  "list --help") exit "$(cat "$here/bare" 2>/dev/null || echo 0)" ;;
  health-check*) [ -e "$here/nodes/10.0.0.1" ] ;;
  start*)
    for word; do case "$word" in --node-ip-address=*) touch "$here/nodes/${word#*=}" ;; esac; done ;;
  "list nodes")
    python3 - "$here/nodes" "$@" <<'PYTHON'
import json, os, sys
wanted = [word.split("=")[1] for word in sys.argv if word.startswith("node_ip=")]
print(json.dumps([{"node_id": each} for each in os.listdir(sys.argv[1]) if not wanted or each in wanted]))
PYTHON
    ;;
esac
"""


class Home:
    def __init__(self, path: Path) -> None:
        self.path, self.bin = path, path / "bin"
        (self.bin / "nodes").mkdir(parents=True)
        (self.bin / "ray").write_text(RAY)
        (self.bin / "ray").chmod(0o755)
        sky_templates.lay_out(str(path))

    def run(self, name: str, rank: int, **more: str) -> str:
        env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
            "SKYPILOT_NUM_GPUS_PER_NODE": "0",
            **more,
        }
        done = subprocess.run(
            [self.path / "sky_templates/ray" / name], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def calls(self, verb: str) -> list[str]:
        path = self.bin / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(verb)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    own = tmp_path / "sky_templates/ray/start_cluster"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    sky_templates.lay_out(str(tmp_path))
    assert own.read_text() == "mine" and os.access(own.with_name("stop_cluster"), os.X_OK)


def test_two_nodes_make_a_cluster_and_a_second_call_changes_nothing(home: Home) -> None:
    with ThreadPoolExecutor(1) as both:  # the head waits for the other node
        more = {"SKYPILOT_NUM_GPUS_PER_NODE": "4", "RAY_DASHBOARD_PORT": "8280"}
        head = both.submit(home.run, "start_cluster", 0, **more)
        home.run("start_cluster", 1)
        assert "2 of 2 nodes have joined 10.0.0.1:6379" in head.result()
    first, second = home.calls("start")
    assert first == (
        "start --head --port=6379 --include-dashboard=True --dashboard-host=127.0.0.1 --dashboard-port=8280 "
        "--disable-usage-stats --node-ip-address=10.0.0.1 --num-gpus=4"
    )
    assert second == "start --address=10.0.0.1:6379 --disable-usage-stats --node-ip-address=10.0.0.2"
    for rank in (0, 1):
        assert "already runs" in home.run("start_cluster", rank)
    assert len(home.calls("start")) == 2


def test_the_command_of_ray_may_have_several_words(home: Home) -> None:
    home.run("start_cluster", 0, RAY_CMD="env MARK=1 ray", SKYPILOT_NUM_NODES="1", RAY_HEAD_PORT="6400")
    assert home.calls("start")[0].startswith("start --head --port=6400 ")


def test_a_ray_without_its_dashboard_gets_it_in_the_same_version(home: Home) -> None:
    (home.bin / "bare").write_text("1")
    (home.bin / "uv").write_text('#!/bin/sh\necho "$@" >>"$(dirname "$0")/installed"\n')
    (home.bin / "uv").chmod(0o755)
    home.run("start_cluster", 0, SKYPILOT_NUM_NODES="1")
    assert (home.bin / "installed").read_text() == "pip install --quiet ray[default]==2.60.0\n"


def test_stopping_ends_this_cluster_only(home: Home) -> None:
    sleeps = "import time; time.sleep(60)"
    raylets = [
        subprocess.Popen([sys.executable, "-c", sleeps, f"--gcs-address=192.0.2.9:{port}", "more"])
        for port in (16379, 16380)
    ]
    try:
        assert "stop_cluster: 1 processes" in home.run("stop_cluster", 0, RAY_HEAD_PORT="16379")
        assert raylets[0].wait(30) != 0
        assert raylets[1].poll() is None
    finally:
        for each in raylets:
            each.kill()
            each.wait()
