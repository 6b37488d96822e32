"""login, logout, whoami, token: who you are to a server."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from argosy.cli.session import Session, answering, examples, pass_session
from argosy.model.errors import ArgosyError
from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.api.people import LoginReply, TokenList
    from argosy.client.client import Client

_DAY_MS: Final = 86_400_000


@click.command(
    epilog=examples(
        "argosy login",
        "argosy login --user ann",
        "argosy login --browser",
        "argosy login --device",
        "argosy login --confirm BCDF-GHJK",
    )
)
@click.option("--user", help="Sign in with a password as this user.")
@click.option("--browser", is_flag=True, help="Sign in where your browser is signed in already.")
@click.option("--device", is_flag=True, help="Show a code, which you type where you are signed in already.")
@click.option("--confirm", metavar="CODE", help="Let the device that shows this code in, as yourself.")
@pass_session
def login(session: Session, user: str | None, browser: bool, device: bool, confirm: str | None) -> None:
    """Sign in to the server that ARGOSY_SERVER names. The token is kept for later commands."""
    client = session.client
    if confirm:
        _confirm(session, client, confirm)
        return
    if client.location.socket is not None:
        raise ArgosyError(
            "usage",
            "the server of this machine asks nobody to sign in",
            hint="ARGOSY_SERVER names another server: `ARGOSY_SERVER=https://HOST argosy login`",
        )
    from argosy.client.client import Client
    from argosy.client.sign_ins import keep

    # Without the token of a sign-in that may be over: a server refuses it, whatever it is asked.
    with Client(client.location._replace(token=""), env=session.env) as stranger:
        if browser:
            reply = _by_browser(session, stranger)
        else:
            reply = _by_device(session, stranger) if device else _by_password(session, stranger, user)
    path = keep(client.location, reply.token)
    session.screen.print(f"Signed in to {client.location.render()} as {reply.user}; the token is in {path}.")
    if reply.must_change_password:
        session.screen.print("Somebody else chose your password: `argosy user password` sets your own.")
    if session.env.get("ARGOSY_TOKEN"):
        session.screen.say("ARGOSY_TOKEN is set and goes before it: unset it to use this sign-in.")


def _by_password(session: Session, client: Client, user: str | None) -> LoginReply:
    name = user or click.prompt("User", default=session.user, err=True)
    password = ask_secret("Password")
    try:
        return client.login(name, password, client="cli")
    except ArgosyError as error:
        if error.code != "second-factor":
            raise
    return client.login(name, password, ask_secret("One-time code"), client="cli")


def _by_browser(session: Session, client: Client) -> LoginReply:
    """The provider's page in a browser; a one-time code comes back to this machine's loopback."""
    import webbrowser

    from argosy.client.loopback import Waiting

    with Waiting() as waiting:
        address = f"{client.location.render()}/login/sso?port={waiting.port}&proof={waiting.proof}"
        session.screen.say(f"Open this in your browser, if it does not open by itself:\n  {address}")
        webbrowser.open(address)
        with session.on_interrupt(lambda: "not signed in"):
            code = waiting.code(180.0)
        return client.login_code(code, client="cli", proof=waiting.secret)


def _by_device(session: Session, client: Client) -> LoginReply:
    host = socket.gethostname()
    device = client.login_device(host)
    session.screen.say(
        f"On a machine where you are signed in, type:  argosy login --confirm {device.code}\n"
        f"It lets `{host}` in as you. The code is good for ten minutes."
    )
    with session.on_interrupt(lambda: "not signed in"):
        while True:
            answer = client.login_device_wait(device.secret)
            if answer.login is not None:
                return answer.login
            time.sleep(device.interval_s)


def _confirm(session: Session, client: Client, code: str) -> None:
    waits = client.login_device_confirm(code, look=True)
    session.screen.say(f"`{waits.host}` at {waits.address or 'this machine'} wants to be let in as you.")
    if sys.stdin.isatty() and not click.confirm("Let it in?", err=True):
        raise ArgosyError("usage", "it was not let in", hint="its code ends by itself")
    client.login_device_confirm(code)
    session.screen.print(f"`{waits.host}` is let in.")


def ask_secret(title: str) -> str:
    """From the terminal without an echo, else a line of standard input: never an argument."""
    if sys.stdin.isatty():
        return str(click.prompt(title, hide_input=True, err=True))
    return sys.stdin.readline().rstrip("\n")


@click.command(epilog=examples("argosy logout"))
@pass_session
def logout(session: Session) -> None:
    """Sign out on this machine."""
    from argosy.client.sign_ins import keep

    client = session.client
    with contextlib.suppress(ArgosyError):
        client.logout()
    keep(client.location, "")
    session.screen.print(f"Signed out of {client.location.render()}.")


@click.command(epilog=examples("argosy whoami", "argosy whoami --json"))
@answering
def whoami(session: Session) -> None:
    """Show who you are to the server, and your roles."""
    reply = session.client.whoami()
    if session.screen.told(reply):
        return
    session.screen.print(f"{reply.name} (by {reply.via}) at {session.client.location.render()}")
    if reply.via == "socket":
        session.screen.print("Whoever reaches this socket may do everything.")
    for held in reply.roles:
        where = held.project or (f"organisation {held.organisation}" if held.organisation else "everything")
        session.screen.print(f"  {held.role:<16}{where}")
    if reply.must_change_password:
        session.screen.print("Somebody else chose your password: `argosy user password` sets your own.")


@click.group(epilog=examples("argosy token create ci --days 30", "argosy token ls"))
def token() -> None:
    """Personal tokens, for programs that act as you."""


@token.command(
    "create",
    epilog=examples(
        "argosy token create ci --days 30 --may 'jobs.*' --may logs.read --project vision",
        "argosy token create deploy --user robot",
    ),
)
@click.argument("name")
@click.option("--days", default=90, show_default=True, help="Days until it expires, at most 366.")
@click.option("--may", "permissions", multiple=True, help="Only these of your permissions, such as `jobs.*`.")
@click.option("--project", "projects", multiple=True, help="Only in these projects.")
@click.option("--user", default="", help="Of this service account, which you administer.")
@answering
def token_create(
    session: Session, name: str, days: int, permissions: tuple[str, ...], projects: tuple[str, ...], user: str
) -> None:
    """Make a token and print it. It is shown once."""
    reply = session.client.add_token(name, days, permissions or ("*",), projects, user)
    session.screen.answer(reply, reply.secret)


@token.command("ls", epilog=examples("argosy token ls", "argosy token ls --user robot --json"))
@click.option("--user", default="", help="Of this user, whom you administer.")
@answering
def token_list(session: Session, user: str) -> None:
    """List tokens and sign-ins, and when they were last used."""
    reply = session.client.tokens(user=user)
    if not session.screen.told(reply):
        _token_table(session, reply)


def _token_table(session: Session, reply: TokenList) -> None:
    now_ms = session.now_ms()

    def when(used_ms: int) -> str:
        return "never" if not used_ms else f"{max(0, now_ms - used_ms) // 60_000} min ago"

    def left(expires_ms: int) -> str:
        return many(max(0, expires_ms - now_ms) // _DAY_MS, "day")

    rows = [
        [
            one.name,
            "token" if one.is_good else "token, over",
            " ".join(one.permissions),
            " ".join(one.projects) or "-",
            when(one.used_ms),
            left(one.expires_ms),
        ]
        for one in reply.tokens
    ]
    rows += [
        [
            one.id,
            f"{one.client}{' (this)' if one.is_this else ''}",
            "*",
            one.address or "-",
            when(one.used_ms),
            left(one.expires_ms),
        ]
        for one in reply.sign_ins
    ]
    session.screen.table(("NAME", "KIND", "MAY", "WHERE", "USED", "LEFT"), rows)


@token.command("rm", epilog=examples("argosy token rm ci", "argosy token rm all"))
@click.argument("name")
@click.option("--user", default="", help="Of this user, whom you administer.")
@pass_session
def token_remove(session: Session, name: str, user: str) -> None:
    """Revoke a token, or end a sign-in by its id (`all`: every sign-in), at once."""
    session.client.remove_token(name, user=user)
    session.screen.print(f"`{name}` is over.")
