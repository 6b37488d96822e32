"""The parts of the benchmark that can be wrong without anybody noticing: medians, marks, the load client."""

from __future__ import annotations

import http.server
import json
import socketserver
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

report = pytest.importorskip("report")


def test_a_figure_is_the_median_and_marks_what_is_missed() -> None:
    figure = report.Figure("k", "what", "s", 0.5, samples=[0.2, 9.0, 0.4])
    assert figure.value == 0.4
    assert figure.reached
    assert not report.Figure("k", "what", "s", 0.5, samples=[0.6]).reached
    assert report.Figure("k", "what", "/s", 100, at_most=False, samples=[120.0]).reached
    assert report.Figure("k", "what", "s", 1).reached is None
    table = report.render_table([report.Figure("k", "what", "s", 0.5, samples=[0.6])])
    assert "**no**" in table
    assert "≤ 0.5 s" in table


def test_results_are_kept_whole_and_rendered(tmp_path: Path) -> None:
    about = {"cpu": "a CPU", "cores": 2, "memory_gib": 4, "kernel": "6", "python": "3.11", "load_1m": 0.1}
    figures = [report.Figure("a", "first", "s", 1, samples=[0.5, 0.7]), report.Figure("b", "second", "MB", 2)]
    path = report.save(tmp_path, "test", about, figures)
    data = json.loads(path.read_text())
    assert data["machine"] == about and path.name == f"{data['date']}-test.json"
    assert data["figures"][0]["samples"] == [0.5, 0.7]
    page = report.render_page(path)
    assert "| first | **0.6 s** |" in page
    assert "not measured" in page


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"{}" * 10
        self.send_response(200 if self.path == "/v1/status" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.mark.parametrize(("target", "good"), [("/v1/status", True), ("/other", False)])
def test_the_load_client_counts_answers(target: str, good: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, _Server(f"{folder}/s", _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / "load_client.py"), f"{folder}/s", target, "2", "0.3"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        server.shutdown()
    told = json.loads(done.stdout)
    if good:
        assert told["errors"] == 0
        assert told["requests"] > 10
    else:
        assert told["errors"] == 2
        assert told["requests"] == 0
