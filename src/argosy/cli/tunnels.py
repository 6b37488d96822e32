"""`serve tunnel`: services behind a firewall, reached through a machine outside."""

from __future__ import annotations

from typing import Any

import click

from argosy.cli.session import Session, answering, examples


@click.group(
    epilog=examples(
        "argosy serve tunnel token chat",
        "argosy serve tunnel accept --listen 0.0.0.0:7443 --tokens tunnels.txt --https 0.0.0.0:443 \\",
        "    --certificate web.pem web.key",
        "argosy serve tunnel open chat --to gateway.example.org:7443 --token-file chat.token",
    )
)
def tunnel() -> None:
    """Reach a service behind a firewall through a machine outside.

    The machine inside connects to the one outside, never the other way, and comes back when the
    connection ends.
    """


@tunnel.command(
    epilog=examples(
        "argosy serve tunnel token chat", "argosy serve tunnel token chat --host chat.example.org --json"
    )
)
@click.argument("name")
@click.option("--host", multiple=True, metavar="HOST", help="Requests for this host go through the tunnel.")
@answering
def token(session: Session, name: str, host: tuple[str, ...]) -> None:
    """Make a token for a tunnel, and its line for the file of tokens of the machine outside."""
    import secrets

    from argosy.gateway.tunnel_greeting import parse_allowed, sha256_of

    made = secrets.token_urlsafe(32)
    line = " ".join((name, sha256_of(made), *host))
    try:
        parse_allowed(line)
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("line 1: ")) from None
    if session.screen.told({"name": name, "token": made, "line": line}):
        return
    session.screen.print(f"The token, for a file inside (mode 0600):\n  {made}")
    session.screen.print(f"Its line, for the file of tokens outside:\n  {line}")


@tunnel.command(
    epilog=examples(
        "argosy serve tunnel accept --listen 0.0.0.0:7443 --tokens tunnels.txt --https 0.0.0.0:443 \\",
        "    --certificate web.pem web.key",
        "argosy serve tunnel accept --listen 0.0.0.0:7443 --tokens tunnels.txt --name 203.0.113.7 \\",
        "    --publish lab=127.0.0.1:2222",
    )
)
@click.option(
    "--listen", required=True, metavar="HOST:PORT", help="Accept tunnels on this address, over TLS."
)
@click.option("--tokens", required=True, metavar="FILE", help="Lines of `serve tunnel token`.")
@click.option(
    "--certificate", multiple=True, nargs=2, metavar="FILE KEYFILE", help="In PEM; else one is made."
)
@click.option("--name", multiple=True, metavar="HOST", help="In the certificate that is made.")
@click.option(
    "--http", multiple=True, metavar="HOST:PORT", help="Accept requests for /s/NAME on this address."
)
@click.option("--https", multiple=True, metavar="HOST:PORT", help="The same, over TLS.")
@click.option(
    "--publish", multiple=True, metavar="NAME=HOST:PORT", help="Accept any bytes for NAME on this address."
)
@click.option("--sockets", metavar="FOLDER", help="One unix socket for each name; default: the state folder.")
@answering
def accept(session: Session, /, listen: str, tokens: str, **flags: Any) -> None:
    """Take tunnels on this machine, and pass requests through them, until it is stopped.

    Each name is also a unix socket in a folder, which the table of another gateway can name as a
    replica. With --json, what happens is told as lines of JSON.
    """
    from argosy.api.location import state_dir

    folder = state_dir(session.env) / "tunnel"
    words = ["accept", "--listen", listen, "--tokens", tokens]
    words += ["--sockets", flags["sockets"] or str(folder)]
    words += [word for pair in flags["certificate"] for word in ("--certificate", *pair)]
    if not flags["certificate"]:
        words += ["--make-certificate", str(folder / "tls"), *flags["name"]]
    for option in ("http", "https", "publish"):
        words += [word for place in flags[option] for word in (f"--{option}", place)]
    _become([*words, *(["--json"] if session.screen.for_programs else [])])


@tunnel.command(
    "open",
    epilog=examples(
        "argosy serve tunnel open chat --to gateway.example.org:7443 --token-file chat.token",
        "argosy serve tunnel open lab=127.0.0.1:22 --to 203.0.113.7:7443 --token-file lab.token "
        "--pin 3f0c...",
    ),
)
@click.argument("name", metavar="SERVICE|NAME=HOST:PORT")
@click.option("--to", required=True, metavar="HOST:PORT", help="Address that accepts tunnels.")
@click.option("--token-file", required=True, metavar="FILE", help="File with the token.")
@click.option(
    "--pin", default="", metavar="SHA256", help="Fingerprint of the only certificate to accept there."
)
@click.option(
    "--ca", default="", metavar="FILE", help="Certificate authority to trust there, instead of the system's."
)
@click.option("--public", is_flag=True, help="HOST:PORT may answer everybody who reaches the gateway.")
@answering
def open_(session: Session, name: str, to: str, token_file: str, pin: str, ca: str, public: bool) -> None:
    """Hold a tunnel open to a machine outside, until it is stopped.

    A service of this machine's server is reached through its gateway, which checks its keys. With
    NAME=HOST:PORT, everything goes to that place: without --public only programs on the machine
    outside reach it (its socket and --publish). With --json, what happens is told as lines of JSON.
    """
    called, equals, target = name.partition("=")
    if public and not equals:
        raise click.UsageError("--public is for NAME=HOST:PORT: whether a service is public, it says itself")
    serves = "public" if public else "private" if equals else "gateway"
    if not equals:
        called, target = _place_of(session, called)
    words = ["open", called, target, "--to", to, "--token-file", token_file, "--serves", serves]
    words += ["--pin", pin] if pin else []
    words += ["--authority", ca] if ca else []
    _become([*words, *(["--json"] if session.screen.for_programs else [])])


def _place_of(session: Session, service: str) -> tuple[str, str]:
    """The name of a service as its address says it, and the socket of its gateway for those outside: whoever
    comes through a tunnel is not on this machine."""
    from urllib.parse import urlsplit

    from argosy.api.location import state_dir
    from argosy.model.errors import ArgosyError

    found = session.client.service(service)
    path = urlsplit(found.endpoint).path
    outside = state_dir(session.env) / "gateway" / "control.outside"
    if not path.startswith("/s/") or not outside.exists():
        raise ArgosyError(
            "wrong-state",
            f"`{service}` has no address at a gateway of this machine: {found.endpoint or 'none yet'}",
            hint=f"wait for a replica (`argosy serve status {service}`), or say NAME=HOST:PORT",
        )
    if found.access in ("machine", "nobody"):
        session.screen.warn(
            [f"`{service}` has no keys and is not public: outside, every request for it is refused"]
        )
        session.screen.say(f"  give it a key:  argosy serve key {service} NAME", "dim")
    return path.removeprefix("/s/").strip("/"), str(outside)


def _become(words: list[str]) -> None:
    import os
    import sys

    command = [sys.executable, "-m", "argosy.gateway.tunnel", *words]
    os.execv(command[0], command)  # noqa: S606  this process becomes one end of the tunnel
