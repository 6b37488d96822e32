"""kernel: sessions as kernels of a Jupyter on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from argosy.cli.session import Session, examples, pass_session, project_option
from argosy.cli.sessions import ISOLATION, Span, wait_until_up

if TYPE_CHECKING:
    from argosy.client.shell import Shell

_APP: Final = "kernel"
_IDLE_S: Final = 2 * 3600
_AGAIN_S: Final = 60.0  # a line that was cut is opened again within this time
_LOOK_S: Final = 2.0  # between two looks whether Jupyter is still there
_RESOURCES: Final = {"gpus": "accelerators", "cpus": "cpus", "memory": "memory", "infra": "infra"}


def _place_options(function: Any) -> Any:  # Any: click's decorators
    for option in reversed(
        (
            click.option("--gpus", metavar="A100:1", help="Accelerators."),
            click.option("--cpus", metavar="2+", help="CPUs; `2+` is at least two."),
            click.option("--memory", metavar="4+", help="Memory, in GB."),
            click.option("--infra", metavar="PLACE", help="Where: PROVIDER[/REGION[/ZONE]]."),
            click.option("--isolation", type=click.Choice(ISOLATION), help="[default: sandbox]"),
            click.option("--idle", type=Span(), help="End it when unused for this long. [default: 2h]"),
            click.option("--session", "into", metavar="NAME", help="Run it in this session, which stays."),
            project_option,
        )
    ):
        function = option(function)
    return function


@click.group(
    name="kernel",
    invoke_without_command=True,
    epilog=examples(
        "argosy kernel install --gpus A100:1",
        "argosy kernel install --session lab --name lab",
        "jupyter console --kernel argosy          then a kernel of this name runs in a session of its own",
    ),
)
@click.option("-f", "--file", "path", type=click.Path(path_type=Path), help="Be the kernel of this file.")
@_place_options
@click.pass_context
def kernel(ctx: click.Context, /, path: Path | None, **flags: Any) -> None:
    """Run kernels of a Jupyter on this machine in sessions."""
    if ctx.invoked_subcommand is not None:
        return
    if path is None:
        raise click.UsageError("say `argosy kernel install`, or give a connection file with -f")
    _be_kernel(ctx.ensure_object(Session), path, flags)


@kernel.command(
    epilog=examples(
        "argosy kernel install --gpus A100:1",
        'argosy kernel install --name big --title "Big machine" --cpus 16 --memory 64',
    )
)
@click.option("--name", default="argosy", show_default=True, help="Name of the kernel.")
@click.option("--title", help="What Jupyter shows. [default: Argosy and what it runs on]")
@_place_options
@pass_session
def install(session: Session, /, name: str, title: str | None, **flags: Any) -> None:
    """Add a kernel to Jupyter: each notebook that uses it gets a session of its own."""
    import re

    from argosy.client.kernel import kernel_spec, kernels_folder

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise click.UsageError(f"`{name}` cannot name a kernel: small letters, digits, `-`, `_` and `.`")
    given = {key: value for key, value in flags.items() if value is not None}
    words = []
    for key, value in given.items():
        option = "--session" if key == "into" else f"--{key}"
        words += [option, f"{value}s" if key == "idle" and value else str(value)]
    told = str(given.get("into") or given.get("gpus") or "")
    passed = {key: session.env[key] for key in ("ARGOSY_HOME", "ARGOSY_SERVER") if session.env.get(key)}
    folder = kernels_folder(session.env) / name
    folder.mkdir(parents=True, exist_ok=True)
    text = kernel_spec(title or (f"Argosy ({told})" if told else "Argosy"), words, passed)
    new = folder / ".kernel.json.new"
    new.write_bytes(text)
    new.replace(folder / "kernel.json")
    session.screen.print(f"{folder}/kernel.json")
    session.screen.say(f"Jupyter, VS Code and `jupyter console --kernel {name}` have it now.")


def _be_kernel(session: Session, path: Path, flags: dict[str, Any]) -> NoReturn:
    """What Jupyter starts: lives until the kernel ends or Jupyter ends it."""
    from argosy.api.sessions import SessionStreams
    from argosy.client.kernel import QUIT, Carried, Typist, inner_connection, read_connection
    from argosy.client.node_stream import NodeStream

    here = read_connection(session.cwd / path)
    inner = inner_connection(here, os.urandom)
    typist = Typist(inner)
    location = session.client.location
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it comes as a message
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    name = ""

    def opened(port: int) -> NodeStream:
        return NodeStream(location, SessionStreams.session_forward(name, port=port).target)

    carried = Carried(here, inner, opened)
    status: int | None = None
    terminal: Shell | None = None
    try:
        name = flags["into"] or _start(session, flags)
        wait_until_up(session, name)
        carried.start()
        until_s = time.monotonic() + _AGAIN_S
        while status is None and time.monotonic() < until_s:
            terminal = _open_terminal(session, name, f"kernel-{inner.hb_port}")
            with terminal:
                for data in terminal.read():
                    _show(typist.hear(data, terminal))
                    until_s = time.monotonic() + _AGAIN_S
                status = terminal.exit_code
        _show(typist.complaint)
        if status:  # Jupyter did not ask for it
            _show(_why_ended(session, name))
    finally:
        carried.stop()
        if name and not flags["into"]:
            session.client.end_session(name)
        elif status is None and terminal is not None:
            terminal.write(QUIT)
    os._exit(255 if status is None else status)


def _why_ended(session: Session, name: str) -> bytes:
    """What became of its session, for the log of the notebook; b"" when that goes on: the program ended."""
    from argosy.model.errors import ArgosyError, render_error

    try:
        view = session.client.session(name)
    except ArgosyError as error:
        return f"{render_error(error)}\n".encode()
    if view.status == "running":
        return b""
    what = f"session `{name}`, in which the kernel ran, is {view.status}"
    what += f": {view.detail}" if view.detail else ""
    lost = ArgosyError("node-unreachable", what, hint="restart the kernel: it gets another session")
    return f"{render_error(lost)}\n".encode()


def _start(session: Session, flags: dict[str, Any]) -> str:
    from argosy.model.apps import Idle, Isolation
    from argosy.spec import task_from_mapping

    asked = {word: flags[key] for key, word in _RESOURCES.items() if flags[key]}
    described = task_from_mapping({"run": "true", "resources": asked}, where="command line")
    idle_s = _IDLE_S if flags["idle"] is None else flags["idle"]
    return session.client.start_session(
        _APP,
        task=described.tasks[0],
        idle=Idle(after_s=idle_s, then="end"),
        isolation=Isolation(flags["isolation"] or Isolation.SANDBOX),
        user=session.user,
        project=flags["project"] or "",
    ).name


def _open_terminal(session: Session, name: str, id: str) -> Shell:
    from argosy.api.sessions import SessionStreams
    from argosy.client.kernel import COMMAND
    from argosy.client.node_stream import open_web_socket
    from argosy.client.shell import Shell
    from argosy.model.errors import ArgosyError

    target = SessionStreams.session_shell(name, id=id, command=COMMAND, columns=200).target
    until_s = time.monotonic() + _AGAIN_S
    while True:
        try:
            return Shell(open_web_socket(session.client.location, target))
        except ArgosyError as error:
            if error.code not in ("server-unreachable", "server-starting") or time.monotonic() > until_s:
                raise
            time.sleep(0.2)


def _show(data: bytes) -> None:
    if sys.stderr.isatty():  # of whoever started the notebook
        from argosy.client.escapes import LogFilter

        data = LogFilter().add(data)
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _watch_parent(parent: int) -> None:
    """A Jupyter that was killed says nothing: its kernel goes with it."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
