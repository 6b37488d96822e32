"""server and version: the process that does the work, and which one it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from argosy import __version__
from argosy.cli.clusters import age
from argosy.cli.session import Session, answering, examples, pass_session, yes_option
from argosy.model.units import many, render_bytes

if TYPE_CHECKING:
    from argosy.api.location import Location

STOP_TIMEOUT_S = 15.0


@click.group(
    epilog=examples(
        "argosy server status",
        "argosy server start --listen 0.0.0.0:7421",
        "argosy server token",
        "argosy server stop",
    )
)
def server() -> None:
    """The server: the first command starts a local one by itself."""


@server.command(
    epilog=examples(
        "argosy server start",
        "argosy server start --listen 0.0.0.0:7421 --tls generated",
        "argosy server start --listen 0.0.0.0:443 --tls acme --domain argosy.example",
        "argosy server start --s3 127.0.0.1:9000",
        "argosy server start --foreground",
    )
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Also listen on this address; clients there need a token."
)
@click.option(
    "--tls",
    type=click.Choice(("generated", "acme")),
    help="Encrypt with a certificate made here, or by ACME.",
)
@click.option("--tls-cert", metavar="FILE", help="Encrypt with this certificate (with its chain).")
@click.option("--tls-key", metavar="FILE", help="The key of --tls-cert.")
@click.option("--domain", multiple=True, metavar="HOST", help="A host of the certificate; may be repeated.")
@click.option("--s3", metavar="HOST:PORT", help="Where programs reach the buckets over S3, with keys.")
@click.option("--peer", metavar="HOST:PORT", help="Where other servers of its PostgreSQL reach it.")
@click.option("--foreground", is_flag=True, help="Stay in this terminal.")
@pass_session
def start(session: Session, /, foreground: bool, **given: str | tuple[str, ...] | None) -> None:
    """Start the local server in the background."""
    import os

    from argosy.client.local_server import ensure_running, is_listening, make_home, server_command
    from argosy.model.errors import ArgosyError

    location = _local(session)
    extra = _arguments(given)
    if (extra or foreground) and is_listening(location):
        raise ArgosyError("server-running", f"a server already listens on {location.render()}")
    if foreground:
        make_home(location.home)
        command = [*server_command(location.home, session.env), *extra]
        os.execvp(command[0], command)  # noqa: S606  this process becomes the server
    started = ensure_running(location, session.env, extra=extra)
    health = session.client.health()
    session.screen.print(
        f"The server {'is running' if started else 'was already running'} (process {health.pid})."
    )


def _arguments(given: Mapping[str, str | tuple[str, ...] | None]) -> tuple[str, ...]:
    """The options of the server's program, with files by their whole paths. Raises `usage`."""
    from pathlib import Path

    from argosy.model.errors import ArgosyError

    encrypts = given.get("tls") or given.get("tls_cert") or given.get("tls_key") or given.get("domain")
    if encrypts and not given.get("listen"):
        raise ArgosyError("usage", "TLS is for clients over the network", hint="add `--listen 0.0.0.0:7421`")
    extra: list[str] = []
    for name, value in given.items():
        for each in (value,) if isinstance(value, str) else value or ():
            path = str(Path(each).absolute()) if name in ("tls_cert", "tls_key") else each
            extra += (f"--{name.replace('_', '-')}", path)
    return tuple(extra)


@server.command(epilog=examples("argosy server stop", "argosy server stop --all"))
@click.option(
    "-a", "--all", "every", is_flag=True, help="End all that it still runs first: clusters, jobs, services."
)
@yes_option
@pass_session
def stop(session: Session, every: bool, yes: bool) -> None:
    """Stop the server. Running jobs go on; the next command starts it again."""
    import time

    from argosy.client.local_server import holder_pid, is_listening
    from argosy.model.errors import ArgosyError

    if every:
        from argosy.cli.ending import end_all

        end_all(session, yes=yes)
    client = session.quiet_client(STOP_TIMEOUT_S)
    location = client.location
    if location.is_default and not is_listening(location):
        silent = holder_pid(location.home)
        if silent is None:
            session.screen.print("No server is running.")
            return
        pid = silent
        _terminate(pid)
    else:
        pid = client.health().pid
        client.server_stop()
    client.close()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while location.socket is not None and (is_listening(location) or _is_alive(pid)):
        if time.monotonic() > deadline:
            raise ArgosyError(
                "conflict",
                f"the server (process {pid}) does not end",
                hint=f"`kill -9 {pid}` ends it; nothing is lost by that",
            )
        time.sleep(0.02)
    session.screen.print(f"The server (process {pid}) has stopped.")


def _terminate(pid: int) -> None:
    """Stop a server that does not listen: its socket was removed, or it is about to start or to end."""
    import os
    import signal

    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def _is_alive(pid: int) -> bool:
    import os

    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return not os.path.isdir("/proc/self")  # noqa: PTH112  with /proc, its word above counts


@server.command(epilog=examples("argosy server status", "argosy server status --json"))
@answering
def status(session: Session) -> None:
    """Show the status of the server. Does not start one."""
    client = session.quiet_client(5.0)
    reply = client.server_status()
    if session.screen.told(reply):
        return
    health = reply.health
    rows = [
        ("address", client.location.render()),
        ("version", f"{health.version} (API {health.api})"),
        ("process", str(health.pid)),
        ("up", age(health.started_ms, session.now_ms())),
        ("memory", render_bytes(reply.memory_bytes)),
        ("listening", ", ".join(reply.listening)),
        ("TLS", reply.certificate),
        ("state", health.state_dir),
        ("store", health.store),
        ("clusters", str(reply.clusters)),
        ("live jobs", str(reply.jobs_live)),
        ("log", reply.log_file),
    ]
    for name, value in rows:
        if value:
            session.screen.print(f"{name:<10}  {value}")


@server.command(
    epilog=examples(
        "argosy server token", "argosy server token --name ci", "argosy server token --name ci --remove"
    )
)
@click.option("--name", help="What it is for; a new one of the same name replaces the old.")
@click.option("--admin", is_flag=True, help="It may also stop the server.")
@click.option("--remove", is_flag=True, help="Revoke the token of this name.")
@click.option("--list", "listing", is_flag=True, help="Only the names of the tokens there are.")
@pass_session
def token(session: Session, name: str | None, admin: bool, remove: bool, listing: bool) -> None:
    """Print a new token for clients that come over the network. It is shown once."""
    extra = ["--name", name] if name else []
    extra += ["--scope", "admin"] if admin else []
    extra += ["--remove"] if remove else []
    extra += ["--list"] if listing else []
    _run_program(session, "token", *extra)


@server.command(epilog=examples("argosy server prune --dry-run", "argosy server prune --days 30"))
@click.option("--days", type=click.IntRange(1), help="Delete what ended this many days ago (as set: 90).")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@answering
def prune(session: Session, days: int | None, dry_run: bool) -> None:
    """Delete old finished work, events, logs and files now; the server does it once a day by itself."""
    reply = session.client.server_prune(days or 0, dry_run)
    if session.screen.told(reply):
        return
    session.screen.print(
        f"{'Would forget' if dry_run else 'Forgot'} {many(reply.workloads, 'finished workload')}, "
        f"{many(reply.events, 'event')}, the logs of {many(reply.logs, 'attempt')} "
        f"({render_bytes(reply.log_bytes)}) and {many(reply.files, 'uploaded file')}."
    )
    if reply.freed_bytes:
        session.screen.print(f"The database gave back {render_bytes(reply.freed_bytes)}.")


@server.command(epilog=examples("argosy server peers", "argosy server peers --forget box-2"))
@click.option("--forget", metavar="NAME", help="Forget this server, which never comes back.")
@pass_session
def peers(session: Session, forget: str | None) -> None:
    """List the servers that share this one's PostgreSQL: which are there, and which decides."""
    _run_program(session, "peers", *(("--forget", forget) if forget else ()))


@server.command(epilog=examples("argosy server key --rotate"))
@click.option("--rotate", is_flag=True, required=True, help="Make a new key and encrypt with it from now on.")
@pass_session
def key(session: Session, rotate: bool) -> None:
    """Encrypt secrets with a new key, also those that are stored already. Running jobs go on."""
    _run_program(session, "key", "--rotate")


def _run_program(session: Session, verb: str, *extra: str) -> None:
    """Let the server's own program do it, on this machine's state folder."""
    import subprocess

    from argosy.client.local_server import server_program

    location = _local(session)
    command = [*server_program(session.env), verb, "--state-dir", str(location.home), *extra]
    session.screen.out.flush()
    done = subprocess.run(command, env=dict(session.env), check=False)
    raise click.exceptions.Exit(done.returncode)


def _local(session: Session) -> Location:
    from argosy.api.location import locate
    from argosy.model.errors import ArgosyError

    location = locate(session.env)
    if not location.is_default:
        raise ArgosyError(
            "usage",
            f"ARGOSY_SERVER names another server ({location.render()})",
            hint="unset it, or run this on that machine",
        )
    return location


@click.command(epilog=examples("argosy version", "argosy version --json"))
@answering
def version(session: Session) -> None:
    """Show the versions of client and server. Does not start one."""
    from argosy.model.errors import ArgosyError

    try:
        health = session.quiet_client(2.0).health()
    except ArgosyError:
        health = None
    if session.screen.told({"client": __version__, "server": health}):
        return
    session.screen.print(f"client  {__version__}")
    session.screen.print(f"server  {health.version if health else 'not running'}")
