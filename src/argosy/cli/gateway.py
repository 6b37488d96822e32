"""gateway: the process that carries requests to services, run and looked at by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from argosy.cli.session import Session, answering, examples, pass_session
from argosy.model.units import many

if TYPE_CHECKING:
    from pathlib import Path


@click.group(epilog=examples("argosy gateway run --listen 0.0.0.0:8080 --workers 0", "argosy gateway status"))
def gateway() -> None:
    """The gateway, which forwards requests to services; the server starts one by itself."""


@gateway.command(
    epilog=examples(
        "argosy gateway run --listen 0.0.0.0:8080 --workers 0",
        "argosy gateway run --tls 0.0.0.0:443 --certificate web.pem web.key "
        "--access-log /var/log/argosy.jsonl",
        "argosy gateway run --name west --region aws/us-west-2 --listen 0.0.0.0:8081",
    )
)
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="Accept requests on this address.")
@click.option("--tls", multiple=True, metavar="HOST:PORT", help="Accept requests over TLS on this address.")
@click.option(
    "--certificate", multiple=True, nargs=2, metavar="FILE KEYFILE", help="Of TLS, in PEM; chosen by host."
)
@click.option(
    "--name", default="control", metavar="NAME", help="Of one more gateway beside the server's own."
)
@click.option("--region", default="", metavar="PROVIDER/REGION", help="The nearest replicas come first.")
@click.option(
    "--control", metavar="SOCKET", help="Socket by which a server controls it; default: the local server's."
)
@click.option("--workers", type=int, default=1, help="Processes that take requests; 0: one per core.")
@click.option("--access-log", metavar="FILE", help="One JSON line for each request.")
@pass_session
def run(
    session: Session, /, control: str | None, workers: int, access_log: str | None, name: str, **flags: Any
) -> None:
    """Run a gateway in this terminal. The local server finds it and uses it instead of one of its own.

    Several of them, each with a --name, share limits and loads; one may end while the others go on.
    """
    import os
    import sys
    from pathlib import Path

    listen, tls, certificate = flags["listen"], flags["tls"], flags["certificate"]
    if not listen and not tls:
        raise click.UsageError("nothing would be served: say --listen HOST:PORT or --tls HOST:PORT")
    place = str(session.cwd / control if control else _control(session, name))
    Path(place).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "argosy.gateway", "--control", place, "--workers", str(workers)]
    command += [word for each in listen for word in ("--listen", each)]
    command += [word for each in tls for word in ("--tls", each)]
    command += [word for each in certificate for word in ("--certificate", *each)]
    command += ["--access-log", access_log] if access_log else []
    command += ["--region", flags["region"]] if flags["region"] else []
    os.execv(command[0], command)  # noqa: S606  this process becomes the gateway


@gateway.command(epilog=examples("argosy gateway status", "argosy gateway status --json"))
@click.option("--name", default="control", metavar="NAME", help="Of one of several gateways.")
@click.option("--control", metavar="SOCKET", help="Its control socket; default: the local server's.")
@answering
def status(session: Session, name: str, control: str | None) -> None:
    """Show what the gateway on this machine forwards: services, replicas, requests, and what waits."""

    from argosy.model.errors import ArgosyError

    place = str(session.cwd / control if control else _control(session, name))
    try:
        told = _ask(place)
    except OSError as error:
        raise ArgosyError(
            "not-found",
            f"no gateway answers at {place}: {error.strerror or error}",
            hint="the server starts one with the first service; `argosy gateway run` starts one by hand",
        ) from None
    if session.screen.told(told):
        return
    session.screen.print(f"Routes by table {told['generation']}.")
    for service in told.get("services", ()):
        counts = [service.get(name, 0) for name in ("requests", "in_flight", "held", "retries")]
        session.screen.print(
            "{}  requests: {}, in flight: {}, waiting: {}, retries: {}".format(service["id"], *counts)
        )
        for replica in service.get("replicas", ()):
            session.screen.print(
                f"  {replica['id']}  revision {replica['revision']}  {replica.get('state', 'ready')}  "
                f"{many(replica.get('requests', 0), 'request')}, {many(replica.get('errors', 0), 'error')}"
            )


def _control(session: Session, name: str) -> Path:
    """The control socket of a gateway that the local server uses."""
    from argosy.api.location import state_dir

    if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name) is None:
        raise click.UsageError(f"`{name}` is no name of a gateway: write small letters, digits and `-`")
    return state_dir(session.env) / "gateway" / f"{name}.sock"


def _ask(place: str) -> dict[str, Any]:
    """The counters that a gateway tells. Raises OSError."""
    import http.client
    import json
    import socket

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(5.0)
            self.sock.connect(place)

    connection = Connection("gateway")
    try:
        connection.request("GET", "/counters")
        return dict(json.loads(connection.getresponse().read()))
    finally:
        connection.close()
