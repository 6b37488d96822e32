"""ssh: this terminal becomes a terminal on a node. No sshd needed; it goes through the server and the agent.
And what OpenSSH itself needs to come the same way."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session, complete_cluster, examples, pass_session, yes_option

if TYPE_CHECKING:
    from argosy.client.shell import Shell, Size


@click.command(
    epilog="""\b
Examples:
  argosy ssh dev
  argosy ssh dev --node 1
  argosy ssh dev -- nvidia-smi
  argosy ssh --setup              then: ssh dev, scp file dev:, rsync, VS Code Remote

Ends with the status of the shell or command."""
)
@click.argument("cluster", required=False, shell_complete=complete_cluster)
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]")
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the node.")
@click.option("--setup", is_flag=True, help="Let OpenSSH, scp, rsync and editors open nodes by name.")
@yes_option
@pass_session
def ssh(
    session: Session, cluster: str | None, words: tuple[str, ...], node: int, setup: bool, yes: bool
) -> None:
    """Open a shell on a node of a cluster, or run a command there."""
    if setup:
        _set_up(session, yes=yes)
        return
    if cluster is None:
        raise click.UsageError("name a cluster, or give --setup")
    from argosy.cli.task_options import command_of
    from argosy.client.shell import open_shell

    client = session.client
    client.cluster(cluster)  # starts the server if need be, and knows the cluster
    with open_shell(
        client.location, cluster, node=node, command=command_of(words) if words else "", size=terminal_size()
    ) as shell:
        status = carry_terminal(shell)
    if status is None:
        session.screen.say(
            f"The connection to `{cluster}` was lost; `argosy ssh {cluster}` opens a new shell."
        )
        status = 255  # as ssh does
    raise click.exceptions.Exit(status)


def _set_up(session: Session, *, yes: bool) -> None:
    """Key pair and entries; then the one line that makes OpenSSH read them, when people agree."""
    from pathlib import Path

    from argosy.client import openssh

    screen, client = session.screen, session.client
    folder = openssh.SshFolder(client.location.home)
    folder.make_key()
    folder.config.touch(mode=0o600)
    session.note_clusters(client.status().clusters)
    people = Path(session.env.get("HOME") or Path.home()) / ".ssh" / "config"
    text = people.read_text("utf-8") if people.exists() else ""
    if not openssh.includes(text, folder.config):
        line = openssh.include_line(folder.config)
        if not yes and not screen.is_terminal():
            screen.print(line)
            screen.say(f"Put this line first in {people}, or run `argosy ssh --setup --yes`.")
            return
        screen.confirm(f"Add `{line}` as the first line of {people}?", yes=yes)
        openssh.add_include(people, folder.config)
    screen.say("`ssh NAME` opens a node of cluster NAME; scp, rsync and VS Code Remote take the same name.")
    screen.say("`ssh NAME.argosy` opens session NAME.")
    screen.say("New clusters are added by `argosy launch` and `argosy status`.")


@click.command(
    "ssh-config",
    epilog=examples(
        "argosy ssh-config               "
        "then: ssh NAME.argosy, scp file NAME.argosy:, rsync, VS Code Remote-SSH",
        "argosy ssh-config --yes",
    ),
)
@yes_option
@pass_session
def ssh_config(session: Session, yes: bool) -> None:
    """Let OpenSSH and editors open sessions (NAME.argosy) and nodes by name."""
    _set_up(session, yes=yes)


@click.command(
    "ssh-proxy",
    epilog="""\b
Example, in ~/.ssh/config (`argosy ssh --setup` writes a faster way to the same):
  Host dev
    ProxyCommand argosy ssh-proxy dev""",
)
@click.argument("cluster")
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the node.")
@pass_session
def ssh_proxy(session: Session, cluster: str, node: int) -> None:
    """Connect OpenSSH to a node or session, as a `ProxyCommand`."""
    from argosy.client.ssh_proxy import carry_ssh

    carry_ssh(session.env, cluster, node)
    os._exit(0)  # a thread waits for input that nobody reads any more


def carry_terminal(shell: Shell) -> int | None:
    """Carry bytes both ways until the shell ends; its exit code, None when the connection was lost."""
    sys.stdout.flush()
    out = sys.stdout.buffer
    with _raw_terminal(), _on_resize(lambda: shell.resize(terminal_size())):
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


def terminal_size() -> Size:
    """Of this terminal; 24 x 80 where there is none."""
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
