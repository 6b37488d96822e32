"""ssh: this terminal becomes a terminal on a node. No sshd needed; it goes through the server and the
agent."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session, complete_cluster, pass_session

if TYPE_CHECKING:
    from argosy.client.shell import Shell, Size


@click.command(
    epilog="""\b
Examples:
  argosy ssh dev
  argosy ssh dev --node 1
  argosy ssh dev -- nvidia-smi

Ends with the status of the shell or command."""
)
@click.argument("cluster", shell_complete=complete_cluster)
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]")
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the node.")
@pass_session
def ssh(session: Session, cluster: str, words: tuple[str, ...], node: int) -> None:
    """Open a shell on a node of a cluster, or run a command there."""
    from argosy.cli.task_options import command_of
    from argosy.client.shell import open_shell

    client = session.client
    client.cluster(cluster)  # starts the server if need be, and knows the cluster
    with open_shell(
        client.location, cluster, node=node, command=command_of(words) if words else "", size=_size()
    ) as shell:
        status = _run(shell)
    if status is None:
        session.screen.say(
            f"The connection to `{cluster}` was lost; `argosy ssh {cluster}` opens a new shell."
        )
        status = 255  # as ssh does
    raise click.exceptions.Exit(status)


def _run(shell: Shell) -> int | None:
    """Carry bytes both ways until the shell ends; its exit code, None when the connection was lost."""
    sys.stdout.flush()
    out = sys.stdout.buffer
    with _raw_terminal(), _on_resize(lambda: shell.resize(_size())):
        typing = threading.Thread(target=_type, args=(shell,), daemon=True)
        typing.start()
        for data in shell.read():
            out.write(data)
            out.flush()
    return shell.exit_code


def _type(shell: Shell) -> None:
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):  # there is no standard input
        return
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            return
        if not data:
            if not sys.stdin.isatty():
                shell.write(b"\x04")  # the end of a pipe is Ctrl-D to the shell
            return
        shell.write(data)


def _size() -> Size:
    from argosy.client.shell import Size

    for descriptor in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if rows and columns:
            return Size(rows, columns)
    return Size()


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the node, Ctrl-C too. The terminal is itself again afterwards, whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _on_resize(act: Callable[[], None]) -> Iterator[None]:
    import signal

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, lambda number, frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
