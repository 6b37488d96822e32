"""An agent on a host that ssh reaches: one session sends what is missing, starts it and brings its facts."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel, DialOrder
from argosy.infra.ssh import Ssh, SshTarget
from argosy.model.facts import NodeFacts

_START_S: Final = 90.0  # a slow disk, or a driver that wakes up

#: Runs in the host's Python before anything of ours is there. It must compile with old ones too: they have to
#: say that they are old. After it, its input holds two lines of JSON (`_Order`, `AgentPlan`), and the
#: zipapp if it is asked for.
_RECEIVER: Final = """\
import sys
def say(text):
    sys.stdout.write(text + chr(10))
    sys.stdout.flush()
if sys.version_info < (3, 8):
    say('{"error": "old-python", "text": "%d.%d.%d"}' % tuple(sys.version_info[:3]))
    sys.exit(1)
import json, os
take = sys.stdin.buffer
order, plan = json.loads(take.readline()), take.readline()
folder = os.path.expanduser(order["folder"])
path = os.path.join(folder, order["file"])
try:
    if not os.path.exists(path):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        say('{"need": true}')
        data = take.read(order["size"])
        if len(data) != order["size"]:
            sys.exit(1)
        part = "%s.%d" % (path, os.getpid())
        try:
            with open(part, "wb") as file:
                file.write(data)
            os.rename(part, path)
        finally:
            if os.path.exists(part):
                os.unlink(part)
except OSError as error:
    import errno
    codes = {errno.ENOSPC: "no-space", errno.EDQUOT: "no-space", errno.EROFS: "read-only",
             errno.EACCES: "denied"}
    say(json.dumps({"error": codes.get(error.errno, "failed"), "path": folder, "text": str(error.strerror)}))
    sys.exit(1)
if order["program"]:
    errand = sys.modules["errand"] = type(sys)("errand")
    exec(compile(order["program"], "errand", "exec", dont_inherit=True), errand.__dict__)
    said = errand.obey(order["errand"])
    if "root" not in said:
        say(json.dumps({"refused": said}))
        sys.exit(1)
    plan = json.loads(plan)
    environ = dict(plan.get("environ") or {}, **said.get("environ", {}))
    plan = json.dumps(dict(plan, root=said["root"], environ=environ)).encode()
import io, runpy
sys.stdin = io.TextIOWrapper(io.BytesIO(plan))
sys.argv = [path, "start"]
runpy.run_path(path, run_name="__main__")
"""


class AgentPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent on a host shall be."""

    name: str  # of the node; the same name on the same host is the same agent
    root: str = ""  # its folder, `~` is the user's home; "": ~/.argosy/nodes/NAME
    socket: str = ""  # "": one in a folder of that host that only the user may enter
    devices: tuple[int, ...] | None = None  # accelerators that belong to the node (None: all)
    environ: Mapping[str, str] = {}  # of the agent
    options: tuple[str, ...] = ()  # more arguments of `serve`
    dial: DialOrder | None = None  # it keeps a connection to the server (None: it waits to be reached)
    starter: str = ""  # of the process that stays on the host for more (`infra.starter`); needs an errand
    python: str = "python3"  # a program on the host's PATH, or a path
    folder: str = "~/.argosy/agent"  # where zipapps are kept


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What is done on the host in the same session, before the agent starts."""

    #: Python text that defines `obey(order)`. With `root` in its answer the agent starts there, and with its
    #: `environ`.
    program: str
    order: msgspec.Raw  # JSON


class ErrandRefused(Exception):
    """Its answer had no `root`: nothing was started."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer.decode("utf-8", "replace"))
        self.answer = answer  # JSON


class AgentPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where an agent is, and what it says about its machine."""

    root: str
    socket: str
    facts: NodeFacts
    started: bool  # False: it was there
    starter: str = ""  # socket of the process that stays on the host; "": there is none


class StartAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the host says about an order to start an agent (`argosy.agent.start`)."""

    need: bool = False
    error: str = ""
    path: str = ""
    text: str = ""
    root: str = ""
    socket: str = ""
    facts: NodeFacts = NodeFacts()
    started: bool = False
    starter: str = ""
    refused: msgspec.Raw = msgspec.Raw(b"")


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    file: str
    size: int
    program: str = ""
    errand: msgspec.Raw = msgspec.Raw(b"null")


async def start_agent(
    ssh: Ssh, to: SshTarget, zipapp: Path, plan: AgentPlan, errand: Errand | None = None
) -> AgentPlace:
    """Make sure that the agent of `plan` serves on the host; safe to repeat. One session does it all: the
    zipapp is sent when the host has none of the same content. Raises a border error that names what is wrong
    with the host and what mends it; `ErrandRefused`."""
    data = await asyncio.to_thread(zipapp.read_bytes)
    file = f"agent-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    receiver, given = receiver_input(file, len(data), plan, errand)
    channel = await ssh.open_command(to, _command(plan.python, len(receiver.encode())))
    try:
        async with asyncio.timeout(_START_S):
            channel.writer.write(receiver.encode() + given)
            answer = await _answer(channel, to)
            if answer.need:
                channel.writer.write(data)
                answer = await _answer(channel, to)
    except TimeoutError:
        raise border.Unreachable(f"the agent on {to.label} did not start within {_START_S:.0f} s") from None
    finally:
        channel.writer.close()
    return place_of(answer, to, plan)


def receiver_input(file: str, size: int, plan: AgentPlan, errand: Errand | None) -> tuple[str, bytes]:
    """The program that starts an agent on a host, and its input. `file`: the zipapp's name there; so many
    bytes follow when it asks for them."""
    asked = _Order(folder=plan.folder, file=file, size=size)
    if errand is not None:
        asked = msgspec.structs.replace(asked, program=errand.program, errand=errand.order)
    return _RECEIVER, msgspec.json.encode(asked) + b"\n" + msgspec.json.encode(plan) + b"\n"


def place_of(answer: StartAnswer, to: SshTarget, plan: AgentPlan) -> AgentPlace:
    """Raises what `start_agent` does."""
    if bytes(answer.refused):
        raise ErrandRefused(bytes(answer.refused))
    if answer.error:
        raise _problem(answer, to, plan)
    return AgentPlace(
        root=answer.root,
        socket=answer.socket,
        facts=answer.facts,
        started=answer.started,
        starter=answer.starter,
    )


def _command(python: str, size: int) -> str:
    program = shlex.quote(python)
    missing = shlex.quote('{"error": "no-python"}')
    return (
        f"command -v {program} >/dev/null 2>&1 || {{ echo {missing}; exit 1; }}; "
        f"exec {program} -I -S -c 'import sys; exec(sys.stdin.buffer.read({size}))'"
    )


async def _answer(channel: Channel, to: SshTarget) -> StartAnswer:
    """The next line that the host says. Raises `Transient` when it ends without one."""
    try:
        line = await channel.reader.readuntil(b"\n")
        return msgspec.json.decode(line, type=StartAnswer)
    except (EOFError, OSError, asyncio.LimitOverrunError):
        raise border.Transient(f"{to.label} broke off while the agent was started there") from None
    except msgspec.MsgspecError:
        said = line.decode("utf-8", "replace").strip()[:200]
        raise border.Transient(f"{to.label} did not start the agent: {said}") from None


def _problem(answer: StartAnswer, to: SshTarget, plan: AgentPlan) -> border.BorderError:
    """The fact, then what mends it."""
    host, path = to.label, answer.path
    own = "make room there, or name a folder on another disk as the node's root"
    texts = {
        "no-python": f"{host} has no `{plan.python}`: install Python 3.8 or newer there, "
        "or name the program to use",
        "old-python": f"`{plan.python}` on {host} is {answer.text}, and 3.8 or newer is needed: "
        "install one beside it, and name the program to use (such as python3.11)",
        "no-space": f"the disk of {path} on {host} is full ({answer.text}): {own}",
        "read-only": f"{path} on {host} is read-only: mount it with `rw`, "
        "or name another folder as the node's root",
        "no-exec": f"{path} on {host} is mounted noexec, so that nothing can be started from it: "
        "mount it with `exec`, or name another folder as the node's root",
        "denied": f"{path} on {host} cannot be written by this user ({answer.text}): "
        "make it theirs, or name another folder as the node's root",
        "taken": f"{path} on {host} belongs to somebody else: remove it, or log in as its owner",
    }
    if answer.error in texts:
        return border.RequestRefused("host", texts[answer.error])
    return border.Transient(f"the agent on {host} did not start: {answer.text or 'it said nothing'}")
