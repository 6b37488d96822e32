"""web: the server's own page in the browser."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Final

import click

from argosy.cli.session import Session, pass_session
from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    import socket

_PORT: Final = 7420
_RESERVED: Final = ("root", "owner")  # names that no account may have
HOST: Final = "argosy.localhost"  # its cookies go to no other port's programs, as those of `localhost` would


@click.command(
    epilog="""\b
Examples:
  argosy web
  argosy web --port 8000 --no-browser
  ARGOSY_SERVER=https://argosy.example argosy web

Nobody is asked for a password: who reaches the server from here is known already. Only this machine reaches
the port, and whoever else uses this machine has to sign in there. Ctrl-C closes it."""
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Of this machine. [default: {_PORT}, or one that is free]"
)
@click.option("--user", default="", help="As this user. [default: you]")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@pass_session
def web(session: Session, port: int | None, user: str, no_browser: bool) -> None:
    """Open Argosy's page in the browser, signed in: your sessions, and a form that starts one."""
    from argosy.api.sessions import SessionStreams
    from argosy.cli.session_opening import show_in_browser
    from argosy.client.forwarding import serve_port
    from argosy.client.node_stream import NodeStream

    screen = session.screen
    code = _code(session, user)
    location = session.client.location
    listener = _listen(port)
    address = f"http://{HOST}:{listener.getsockname()[1]}/"

    def opened() -> NodeStream:
        return NodeStream(location, SessionStreams.apps_door().target)

    with session.on_interrupt(lambda: "The page is closed; sessions go on."):
        serving = threading.Thread(target=serve_port, args=(listener, opened, screen.say_error), daemon=True)
        serving.start()
        if not no_browser and show_in_browser(session, f"{address}#code={code}"):
            screen.print(address)
        else:
            screen.print(f"{address}#code={code}")
            screen.say("Open it within a minute; it works once, and keeps you signed in.", "dim")
        screen.out.flush()
        serving.join()


def _listen(port: int | None) -> socket.socket:
    from argosy.client.forwarding import listen

    if port is not None:
        return listen("127.0.0.1", port)
    try:
        return listen("127.0.0.1", _PORT)
    except ArgosyError:
        return listen("127.0.0.1", 0)


def _code(session: Session, user: str) -> str:
    """A code that signs a browser in. The owner of a server that nobody has an account on gets one by this:
    without a password, as an owner."""
    client = session.client
    try:
        return client.make_login_code(user).code
    except ArgosyError as error:
        if error.code != "usage" or user:
            raise
    name = session.user.lower()
    if name in _RESERVED or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        name = "admin"
    known = {view.name for view in client.users().users}
    if name not in known:
        if known:
            raise ArgosyError(
                "usage",
                f"you have no account here: there is no user `{name}`",
                hint="`argosy web --user NAME` opens it as somebody else; `argosy user add` makes an account",
            )
        client.add_user(name)
        client.set_member(name, "owner")
        session.screen.say(f"There is an account `{name}` now, an owner without a password.", "dim")
    return client.make_login_code(name).code
