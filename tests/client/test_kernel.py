"""A session as a kernel: the file for Jupyter, the connection file inside, and five carried ports."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from pathlib import Path
from typing import cast

import msgspec
import pytest

from argosy.client.kernel import (
    COMMAND,
    Carried,
    ConnectionFile,
    Typist,
    inner_connection,
    kernel_spec,
    kernels_folder,
    read_connection,
)
from argosy.client.node_stream import NodeStream
from argosy.model.errors import ArgosyError
from argosy.testing.ports import free_ports

HERE = ConnectionFile(shell_port=1, iopub_port=2, stdin_port=3, control_port=4, hb_port=5, key="signs")


class FakeStream:
    """A connection to a port of the session that answers everything with its number."""

    def __init__(self, port: int) -> None:
        self._answer = b"port %d" % port
        self._gone = threading.Event()

    def __enter__(self) -> FakeStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, data: bytes) -> bool:
        return True

    def end(self) -> None:
        self._gone.set()

    def close(self) -> None:
        self._gone.set()

    def read(self) -> bytes:
        answer, self._answer = self._answer, b""
        if not answer:
            self._gone.wait(20)
        return answer


class FakeConsole:
    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.typed: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.typed.append(data)


def test_every_port_leads_to_its_own_once_the_kernel_listens() -> None:
    ports = free_ports(5)
    here = ConnectionFile(
        shell_port=ports[0], iopub_port=ports[1], stdin_port=ports[2], control_port=ports[3],
        hb_port=ports[4],
    )  # fmt: skip
    asked: list[int] = []

    def opened(port: int) -> NodeStream:
        asked.append(port)
        if len(asked) < 3:  # it is starting
            raise ArgosyError("node-unreachable", f"nothing answers on port {port}")
        return cast(NodeStream, FakeStream(port))

    rolls = itertools.count(1)
    inner = inner_connection(here, lambda count: next(rolls).to_bytes(count, "big"))
    carried = Carried(here, inner, opened)
    try:
        clients = [socket.create_connection(("127.0.0.1", port), timeout=90) for port in ports]
        carried.start()
        for client, port in zip(clients, inner.ports, strict=True):
            with client:
                assert client.recv(100) == b"port %d" % port
    finally:
        carried.stop()
    assert asked[:3] == [inner.hb_port] * 3 and set(asked) == set(inner.ports)


def test_the_kernel_has_ports_of_its_own_and_the_same_key() -> None:
    rolls = iter([b"\0\0\0\7", b"\0\0\0\7", *(bytes([0, 0, 0, count]) for count in range(1, 9))])
    inner = inner_connection(HERE, lambda count: next(rolls))
    assert inner.ports == (20007, 20001, 20002, 20003, 20004)
    assert (inner.key, inner.ip) == ("signs", "127.0.0.1")


def test_the_key_is_typed_when_it_is_asked_for_and_nothing_of_that_is_shown() -> None:
    console, typist = FakeConsole(), Typist(HERE)
    assert typist.hear(b"welcome\r\nargosy: kern", console) == b"" and not console.typed
    assert typist.hear(b"el waits\r\nit runs", console) == b"it runs"
    assert typist.hear(b" on", console) == b" on"
    (line,) = console.typed
    assert line.endswith(b"\n") and msgspec.json.decode(line, type=ConnectionFile) == HERE
    assert typist.complaint == b"" and "signs" not in COMMAND


def test_what_a_terminal_says_instead_is_kept_for_people() -> None:
    typist = Typist(HERE)
    typist.hear(b"stty: not found", FakeConsole())
    assert typist.complaint == b"stty: not found"
    with pytest.raises(ArgosyError, match="the connection file is longer than 4000 bytes"):
        Typist(msgspec.structs.replace(HERE, key="k" * 4000))


def test_the_file_for_jupyter() -> None:
    text = json.loads(kernel_spec("Argosy (A100:1)", ["--gpus", "A100:1"], {"ARGOSY_HOME": "/x"}))
    assert text["argv"][1:] == [
        "-P", "-m", "argosy.cli", "kernel", "-f", "{connection_file}", "--gpus", "A100:1",
    ]  # fmt: skip
    assert (text["interrupt_mode"], text["display_name"]) == ("message", "Argosy (A100:1)")
    assert kernels_folder({"HOME": "/h", "JUPYTER_DATA_DIR": "/j"}) == Path("/j/kernels")
    assert kernels_folder({"HOME": "/h"}, "darwin") == Path("/h/Library/Jupyter/kernels")
    assert kernels_folder({"HOME": "/h", "XDG_DATA_HOME": "/d"}, "linux") == Path("/d/jupyter/kernels")


def test_files_that_are_no_connection_file(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"shell_port": 1}')
    with pytest.raises(ArgosyError, match=r"is no connection file of Jupyter: .*missing required field"):
        read_connection(file)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(HERE, transport="ipc")))
    with pytest.raises(ArgosyError, match="asks for the transport `ipc`: only tcp is carried"):
        read_connection(file)
