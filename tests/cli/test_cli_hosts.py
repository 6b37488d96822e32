"""pool add and what follows, on a fake server: what is asked, what is shown, how it ends."""

from __future__ import annotations

import subprocess

import msgspec
import pytest
from command_line import CommandLine

from argosy.model.enlisting import HostOrder, HostReport
from argosy.testing.fake_server import FakeServer
from argosy.testing.host_answers import works


def fails(order: HostOrder, text: str, hint: str, **more: str) -> HostReport:
    return msgspec.structs.replace(
        works(order), ok=False, text=text, hint=hint, facts=None, python="", **more
    )


def test_hosts_that_work_are_added_and_others_are_told_what_to_do(
    argosy: CommandLine, server: FakeServer
) -> None:
    server.examined = lambda order: (
        works(order)
        if order.host != "gpu2"
        else fails(order, "gpu2 has no python3", "install Python 3.8 or newer there")
    )
    done = argosy(
        "pool", "add", "lab", "--hosts", "gpu[1-3],dgx", "me@old", "--user", "me", "--jump", "bastion"
    )
    assert done.status == 1
    assert (
        done.out
        == """\
HOST    STATE  WHAT
gpu1    works  4 H100, 64 CPUs, 512 GB, Python 3.10.12
gpu2    fails  gpu2 has no python3: install Python 3.8 or newer there
gpu3    works  4 H100, 64 CPUs, 512 GB, Python 3.10.12
dgx     works  4 H100, 64 CPUs, 512 GB, Python 3.10.12
me@old  works  4 H100, 64 CPUs, 512 GB, Python 3.10.12
"""
    )
    assert done.err == (
        "1 of 5 hosts was not added\nRun something there: `argosy launch --infra ssh/lab -- hostname`\n"
    )
    [added] = server.seen("enlist_hosts")
    hosts = msgspec.json.decode(added.body)["hosts"]
    assert [host["host"] for host in hosts] == ["gpu1", "gpu3", "dgx", "me@old"]
    assert hosts[0] == {"pool": "lab", "host": "gpu1", "user": "me", "jumps": ["bastion"]}


def test_nothing_is_added_when_nothing_works(argosy: CommandLine, server: FakeServer) -> None:
    server.examined = lambda order: fails(
        order, f"the host name `{order.host}` does not resolve", "correct it"
    )
    done = argosy("pool", "add", "lab", "gpu9", "--json")
    assert done.status == 1
    assert [report["text"] for report in msgspec.json.decode(done.out)] == [
        "the host name `gpu9` does not resolve"
    ]
    assert not server.seen("enlist_hosts")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("lab",), "error: name hosts: `--hosts gpu1,gpu2`"),
        (("lab", "gpu[5-2]"), "error: `gpu[5-2]` counts from 5 to 2: write for example gpu[1-8]"),
        (
            ("lab", "gpu1", "--port", "0"),
            "error: invalid value for '--port': 0 is not in the range 1<=x<=65535",
        ),
    ],
)
def test_what_is_asked_wrongly_is_told(argosy: CommandLine, words: tuple[str, ...], told: str) -> None:
    done = argosy("pool", "add", *words)
    assert done.status == 2
    assert done.err.splitlines()[0] == told


def test_a_password_is_asked_for_and_sent_once(argosy: CommandLine, server: FakeServer) -> None:
    def examined(order: HostOrder) -> HostReport:
        return works(order) if order.password else fails(order, "refused", "name a key", asks="password")

    server.examined = examined
    words = ("pool", "add", "lab", "gpu1", "--password")
    process = argosy.process(*words, stdin=subprocess.PIPE, start_new_session=True)
    out, err = process.communicate("open sesame\n", timeout=60)
    assert process.returncode == 0, err
    assert "Password for gpu1 (used once, to install a key; empty: none)" in err
    assert "open sesame" not in out + err
    sent = [msgspec.json.decode(each.body)["host"].get("password") for each in server.seen("examine_host")]
    assert sent == [None, "open sesame"]
    assert b"sesame" not in server.seen("enlist_hosts")[0].body


def test_hosts_are_listed_with_what_is_wrong(argosy: CommandLine) -> None:
    head, first, second = argosy("pool", "hosts", "lab").out.splitlines()
    assert head.split() == [
        *("HOST", "ADDRESS", "STATE", "GPUS", "CPUS", "MEMORY", "PYTHON", "CLAIMS", "WHY", "WRITTEN", "IN")
    ]
    assert first.split() == ["lab/gpu1", "me@gpu1", "open", "4", "H100", "64", "512", "GB", "3.10.12", "1"]
    why = "me@gpu2 refuses connections at port 22: is sshd running there, and is the port right?"
    assert second.split() == [
        "lab/gpu2",
        "me@gpu2",
        "closed",
        *why.split(),
        "/home/me/.argosy/pools.yaml:3:5",
    ]
    assert argosy("pool", "hosts", "other").out == (
        "No hosts. `argosy pool add NAME --hosts HOST,HOST` makes a pool.\n"
    )


@pytest.mark.parametrize(
    ("words", "told", "state"),
    [
        (("cordon", "gpu2"), "lab/gpu2 takes nothing new; what runs there runs on\n", "cordoned"),
        (("uncordon", "gpu2"), "lab/gpu2 is open again\n", ""),
        (("drain", "gpu2"), "lab/gpu2 takes nothing new, and managed jobs on it move away\n", "drained"),
    ],
)
def test_hosts_are_closed_and_opened(
    argosy: CommandLine, server: FakeServer, words: tuple[str, ...], told: str, state: str
) -> None:
    assert argosy("pool", *words).out == told
    [request] = server.seen("close_hosts")
    assert msgspec.json.decode(request.body).get("state", "") == state


def test_hosts_are_removed_when_somebody_is_sure(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy("pool", "remove", "gpu2", "-y", "--force").out == "lab/gpu2 is in no pool any more\n"
    assert msgspec.json.decode(server.seen("dismiss_hosts")[0].body) == {"hosts": ["gpu2"], "force": True}
