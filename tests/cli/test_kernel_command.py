"""`argosy kernel install`: what it writes, and that a kernel asks for the machine that it names."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.sessions import SessionRequest
from argosy.cli.kernels import _start
from argosy.cli.session import Session
from argosy.model.apps import Isolation


def test_a_kernel_for_a_gpu_is_written_and_asks_for_it(argosy: CommandLine) -> None:
    said = argosy.good("kernel", "install", "--gpus", "A100:1", "--idle", "30m", "--name", "gpu")
    kernel = json.loads(Path(said.splitlines()[0]).read_text(encoding="utf-8"))
    words = kernel["argv"][kernel["argv"].index("{connection_file}") + 1 :]
    assert (kernel["display_name"], words) == ("Argosy (A100:1)", ["--gpus", "A100:1", "--idle", "1800s"])
    assert kernel["env"] == {"ARGOSY_SERVER": argosy.env["ARGOSY_SERVER"]}, "no token, no more than is needed"

    flags = {"gpus": "A100:1", "cpus": None, "memory": None, "infra": None, "isolation": None, "idle": 1800}
    name = _start(Session(argosy.env), {**flags, "project": None})
    (seen,) = argosy.server.seen("start_session")
    request = msgspec.json.decode(seen.body, type=SessionRequest)
    assert name
    accelerator = request.task.resources[0].accelerator
    assert accelerator is not None and (accelerator.model, accelerator.milli) == ("A100", 1000)
    assert (request.app, request.idle.after_s, request.idle.then) == ("kernel", 1800, "end")
    assert request.isolation is Isolation.SANDBOX


@pytest.mark.parametrize("name", ["", "Big", "a b", "../x", ".hidden"])
def test_names_that_are_no_folder_of_ours(argosy: CommandLine, name: str) -> None:
    done = argosy("kernel", "install", "--name", name)
    assert done.status == 2 and f"`{name}` cannot name a kernel" in done.err
