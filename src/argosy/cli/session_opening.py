"""Opening sessions from the command line: a terminal here, or a port of this machine that leads to the
app."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

import click

from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.api.sessions import SessionView


def open_view(session: Session, view: SessionView, *, quiet: bool = False) -> None:
    """As `argosy session open NAME`."""
    if view.is_proxied:
        open_app(session, view, port=0, there=0, browser=not quiet, raw=False)
    else:
        open_terminal(session, view.name)


def open_terminal(session: Session, name: str, *, command: str = "", id: str = "") -> NoReturn:
    """This terminal becomes one of the session; ends with the status of the shell, 255 when the line is
    lost."""
    from argosy.api.sessions import SessionStreams
    from argosy.cli.shell import carry_terminal, terminal_size
    from argosy.client.node_stream import open_web_socket
    from argosy.client.shell import Shell

    size = terminal_size()
    target = SessionStreams.session_shell(
        name, id=id, command=command or None, rows=size.rows, columns=size.columns
    ).target
    with Shell(open_web_socket(session.client.location, target)) as shell:
        status = carry_terminal(shell)
    if status is None:
        session.screen.say(f"The line to `{name}` was lost; the shell goes on.")
        status = 255
    raise click.exceptions.Exit(status)


def open_app(session: Session, view: SessionView, *, port: int, there: int, browser: bool, raw: bool) -> None:
    """A port of this machine leads to the proxy of apps, until Ctrl-C; with `raw` straight to the port of the
    session, for whoever is on this machine."""
    from argosy.api.sessions import SessionStreams
    from argosy.client.forwarding import listen, serve_port
    from argosy.client.node_stream import NodeStream
    from argosy.model.errors import ArgosyError, render_error

    screen, client = session.screen, session.client
    location = client.location
    if raw:
        target, entry = SessionStreams.session_forward(view.name, port=there).target, ""
        NodeStream(location, target).close()  # it says at once what is wrong
    else:
        opened = client.open_session(view.name, there)
        target, entry = SessionStreams.apps_door().target, f"#code={opened.code}"
    listener = listen("127.0.0.1", port)
    here = listener.getsockname()[1]

    def say(error: ArgosyError) -> None:
        screen.say(render_error(error))

    with session.on_interrupt(lambda: f"No longer forwarding `{view.name}`; the session goes on."):
        serving = threading.Thread(
            target=serve_port, args=(listener, lambda: NodeStream(location, target), say), daemon=True
        )
        serving.start()
        if raw:
            screen.print(f"127.0.0.1:{here} -> port {there} of {view.name}")
        else:
            host = f"http://{opened.label}.localhost:{here}"
            if browser and screen.is_terminal() and show_in_browser(session, f"{host}/.argosy/enter{entry}"):
                screen.print(f"{host}/")
            else:
                screen.print(f"{host}/.argosy/enter{entry}")
                screen.say(
                    "Open it within half a minute; it works once, and keeps you signed in there.", "dim"
                )
        screen.out.flush()
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
