"""Opening sessions from the command line: a terminal here, or a port of this machine that leads to the
app."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NoReturn

import click

from argosy.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.api.sessions import OpenReply, SessionView


def open_view(session: Session, view: SessionView, *, quiet: bool = False) -> None:
    """As `argosy session open NAME`."""
    if view.is_proxied:
        open_app(session, view, port=0, there=0, browser=not quiet, raw=False)
    else:
        open_terminal(session, view.name)


def open_terminal(
    session: Session, name: str, *, command: str = "", id: str = "", watch: bool = False
) -> NoReturn:
    """This terminal becomes one of the session; ends with the status of the shell, 255 when the line is lost
    for good. `watch`: it only shows what others do."""
    from argosy.api.sessions import SessionStreams
    from argosy.cli.shell import carry_terminal, terminal_size
    from argosy.client.node_stream import open_web_socket
    from argosy.client.shell import LastingShell
    from argosy.client.web_socket import WebSocket

    size = terminal_size()

    def open_line(known: str, seen: int) -> WebSocket:
        target = SessionStreams.session_shell(
            name,
            id=known or id,
            seen=seen,
            acks=True,
            watch=watch,
            command=command or None,
            rows=size.rows,
            columns=size.columns,
        ).target
        return open_web_socket(session.client.location, target)

    with LastingShell(open_line, clock=time.monotonic, sleep=time.sleep) as shell:
        status = carry_terminal(shell)
    if shell.lost_bytes:
        session.screen.say(f"{shell.lost_bytes} bytes of its output were lost while the line was cut.")
    if status is None:
        again = f"`argosy session open {name} --as terminal --id {shell.id}` finds it again"
        session.screen.say(f"The line to `{name}` was lost; the shell goes on: {again}.")
        status = 255
    raise click.exceptions.Exit(status)


def open_app(session: Session, view: SessionView, *, port: int, there: int, browser: bool, raw: bool) -> None:
    """A port of this machine leads to the proxy of apps, until Ctrl-C; with `raw` straight to the port of the
    session, for whoever is on this machine."""
    if not raw:
        opened = session.client.open_session(view.name, there)
        open_page(session, opened, port=port, name=view.name, browser=browser)
        return
    from argosy.api.sessions import SessionStreams
    from argosy.client.node_stream import NodeStream

    target = SessionStreams.session_forward(view.name, port=there).target
    NodeStream(session.client.location, target).close()  # it says at once what is wrong
    _forward(
        session,
        target,
        port,
        view.name,
        lambda here: session.screen.print(f"127.0.0.1:{here} -> port {there} of {view.name}"),
    )


def open_page(session: Session, opened: OpenReply, *, port: int, name: str, browser: bool = True) -> None:
    """A port of this machine leads to the proxy of apps, until Ctrl-C; the browser shows what was opened."""
    from argosy.api.sessions import SessionStreams

    screen = session.screen

    def show(here: int) -> None:
        host, entry = f"http://{opened.label}.localhost:{here}", f"#code={opened.code}"
        if browser and screen.is_terminal() and show_in_browser(session, f"{host}/.argosy/enter{entry}"):
            screen.print(f"{host}/")
            return
        screen.print(f"{host}/.argosy/enter{entry}")
        screen.say("Open it within half a minute; it works once, and keeps you signed in there.", "dim")

    _forward(session, SessionStreams.apps_door().target, port, name, show)


def _forward(session: Session, target: str, port: int, name: str, show: Callable[[int], None]) -> None:
    """Until Ctrl-C. `show`: tells people of the port here."""
    from argosy.client.forwarding import listen, serve_port
    from argosy.client.node_stream import NodeStream

    location = session.client.location
    listener = listen("127.0.0.1", port)

    with session.on_interrupt(lambda: f"No longer forwarding `{name}`; it goes on."):
        serving = threading.Thread(
            target=serve_port,
            args=(listener, lambda: NodeStream(location, target), session.screen.say_error),
            daemon=True,
        )
        serving.start()
        show(listener.getsockname()[1])
        session.screen.out.flush()
        serving.join()


def show_in_browser(session: Session, address: str) -> bool:
    """Open an address that holds a code; False: there is no browser here. The browser is given a file that
    only its user may read and that leads there: arguments of programs are seen by everybody."""
    import atexit
    import os
    import webbrowser

    from argosy.client.openssh import write_own

    folder = session.client.location.home / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"open-{os.getpid()}.html"
    leads = f'<meta http-equiv=refresh content="0;url={address}">'
    write_own(file, f"<!doctype html><meta charset=utf-8>{leads}\n")
    atexit.register(file.unlink, missing_ok=True)
    try:
        return webbrowser.open(file.as_uri())
    except webbrowser.Error:
        return False
