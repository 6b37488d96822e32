"""`python -m argosy.server run|token|key|peers`: what `argosy server` starts."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argosy.api.location import state_dir
from argosy.model.errors import ArgosyError, render_error

if TYPE_CHECKING:
    from argosy.identity.oidc import Settings as Provider
    from argosy.server.door_rules import DoorRules
    from argosy.server.own_tls import TlsWish
    from argosy.server.run import Settings
    from argosy.store import Store
    from argosy.store.secrets import Keyring


_NAMES = ("ARGOSY_PUBLIC_URL", "ARGOSY_HOSTS", "ARGOSY_TRUSTED_PROXIES", "ARGOSY_TLS_DOMAINS")
_KEYS_S = 60.0  # for the command that asks for keys


def main(argv: Sequence[str]) -> int:
    """The exit status."""
    options = _parse(argv)
    gc.disable()  # what is loaded stays, so until it serves there is nothing to find (`server.run`)
    # Nothing that the server writes is for others; what programs write is as their user has it.
    os.environ.setdefault("ARGOSY_UMASK", f"{os.umask(0o077):03o}")
    os.umask(0o077)
    try:
        if options.verb in ("token", "key", "peers"):
            import asyncio

            return asyncio.run(_with_store(options))
        from argosy.server.run import run

        run(_settings(options))
    except ArgosyError as error:
        print(render_error(error), file=sys.stderr)  # noqa: T201
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m argosy.server", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="serve until told to stop")
    run.add_argument(
        "--state-dir", default="", help="folder of everything that is kept (default: ARGOSY_HOME)"
    )
    run.add_argument("--listen", default="", metavar="HOST:PORT", help="also over TCP, with tokens")
    run.add_argument("--tls", default="", choices=("generated", "acme"), help="a certificate made or fetched")
    run.add_argument(
        "--tls-cert", default="", metavar="FILE", help="a certificate of your own, with its chain"
    )
    run.add_argument("--tls-key", default="", metavar="FILE", help="its key")
    run.add_argument("--domain", action="append", default=[], metavar="HOST", help="of the certificate")
    run.add_argument("--acme-http", default="", metavar="HOST:PORT", help="where an authority asks (port 80)")
    run.add_argument("--gateway", default="", metavar="HOST:PORT", help="where services answer")
    run.add_argument("--s3", default="", metavar="HOST:PORT", help="where programs reach the buckets over S3")
    run.add_argument(
        "--peer", default="", metavar="HOST:PORT", help="where other servers of the database reach this one"
    )
    run.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    token = verbs.add_parser("token", help="make a token for clients over TCP, and print it once")
    token.add_argument("--state-dir", default="")
    token.add_argument("--name", default="default", help="one of the same name is replaced")
    token.add_argument(
        "--scope", default="use", choices=("use", "admin"), help="admin may also stop the server"
    )
    token.add_argument("--remove", action="store_true", help="take the token of this name back")
    token.add_argument("--list", action="store_true", help="names of all tokens")
    peers = verbs.add_parser("peers", help="the servers that share the database")
    peers.add_argument("--state-dir", default="")
    peers.add_argument("--forget", default="", metavar="NAME", help="one that never comes back")
    key = verbs.add_parser("key", help="seal secrets with a new key from now on")
    key.add_argument("--state-dir", default="")
    key.add_argument("--rotate", action="store_true", required=True, help="make the new key")
    return parser.parse_args(argv)


def _settings(options: argparse.Namespace) -> Settings:
    from argosy.server.dialling import parse_public
    from argosy.server.housekeeping import parse_retention
    from argosy.server.run import Settings

    home = Path(options.state_dir).absolute() if options.state_dir else state_dir(os.environ)
    environ, listen = _environ(options), getattr(options, "listen", "")
    rules = _rules(environ, listen)
    tls = _tls(environ, home, listen, frozenset() if rules is None else rules.hosts)
    public = parse_public(environ)
    if tls is not None and not public.ca:
        public = msgspec.structs.replace(public, ca=tls.trusted)
    return Settings(
        state_dir=home,
        listen=listen,
        gateway=getattr(options, "gateway", "") or os.environ.get("ARGOSY_GATEWAY", ""),
        s3=getattr(options, "s3", "") or os.environ.get("ARGOSY_S3", ""),
        log_level=getattr(options, "log_level", "info"),
        store=os.environ.get("ARGOSY_STORE", ""),
        peer=getattr(options, "peer", "") or os.environ.get("ARGOSY_PEER", ""),
        keys=_keys(),
        retention=parse_retention(os.environ),
        public=public,
        tls=tls,
        rules=rules,
        provider=_provider(),
    )


def _keys() -> Path | Keyring | None:
    """Where the keys that seal secrets are: a file, a command that asks who keeps them, the environment. No
    program that this one starts sees them. Raises `usage`."""
    text = os.environ.pop("ARGOSY_KEYS", "")
    command, file = os.environ.get("ARGOSY_KEY_COMMAND", ""), os.environ.get("ARGOSY_KEY_FILE", "")
    if sum(map(bool, (text, command, file))) > 1:
        names = "ARGOSY_KEY_FILE, ARGOSY_KEY_COMMAND and ARGOSY_KEYS"
        raise ArgosyError("usage", f"{names} say the same in three ways", hint="set one of them")
    if file:
        return Path(file).absolute()
    if not (text or command):
        return None
    from argosy.store.secrets import GivenKeys

    return (
        GivenKeys("ARGOSY_KEYS", lambda: text)
        if text
        else GivenKeys("ARGOSY_KEY_COMMAND", lambda: _asked(command))
    )


def _asked(command: str) -> str:
    """What a command prints. Raises OSError, with what it said when it failed."""
    import shlex
    import subprocess

    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, timeout=_KEYS_S, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"it did not end within {_KEYS_S:.0f} s") from None
    if done.returncode:
        raise OSError(f"it ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _rules(environ: Mapping[str, str], listen: str) -> DoorRules | None:
    """Names of the server, and proxies in front of it. None: nobody comes from elsewhere."""
    if not listen and not any(environ.get(name) for name in _NAMES):
        return None
    from argosy.server.door_rules import parse_rules

    return parse_rules({**environ, "ARGOSY_HOSTS": _hosts(environ)})


def _hosts(environ: Mapping[str, str]) -> str:
    """Names under which browsers come: also those of the certificate that was asked for."""
    domains = environ.get("ARGOSY_TLS_DOMAINS", "").replace(",", " ").split()
    return " ".join((environ.get("ARGOSY_HOSTS", ""), *(each for each in domains if "*" not in each)))


def _environ(options: argparse.Namespace) -> dict[str, str]:
    """The environment with what the command line says in its place."""
    said = {
        "ARGOSY_TLS": getattr(options, "tls", ""),
        "ARGOSY_TLS_CERT": getattr(options, "tls_cert", ""),
        "ARGOSY_TLS_KEY": getattr(options, "tls_key", ""),
        "ARGOSY_TLS_DOMAINS": " ".join(getattr(options, "domain", ())),
        "ARGOSY_ACME_HTTP": getattr(options, "acme_http", ""),
    }
    return {**os.environ, **{name: value for name, value in said.items() if value}}


def _tls(environ: Mapping[str, str], home: Path, listen: str, hosts: frozenset[str]) -> TlsWish | None:
    """Nothing of it is loaded where there is none."""
    if not listen or not (environ.get("ARGOSY_TLS") or environ.get("ARGOSY_TLS_CERT")):
        return None
    from argosy.server.own_tls import parse_tls

    return parse_tls(environ, home, listen, hosts)


def _provider() -> Provider | None:
    """Nothing of it is loaded where there is none."""
    if not os.environ.get("ARGOSY_OIDC_ISSUER"):
        return None
    from argosy.server.sign_in_pages import parse_provider

    return parse_provider(os.environ)


async def _with_store(options: argparse.Namespace) -> int:
    """What is done in the database itself: a server that runs sees it at once."""
    from argosy.infra.system import SystemClock, SystemIds
    from argosy.server.old_files import import_tokens
    from argosy.store import Store

    settings = _settings(options)
    store = await Store.open(settings.url, ids=SystemIds(), clock=SystemClock(), keys=settings.key_file)
    try:
        if options.verb == "key":
            name, count = await store.rotate_key()
            place = getattr(settings.key_file, "place", settings.key_file)
            print(f"secrets are sealed with the new key {name} ({count} sealed again): {place}")  # noqa: T201
            return 0
        if options.verb == "peers":
            from argosy.server.peers.listing import tell_peers

            print("\n".join(await tell_peers(store, options.forget)))  # noqa: T201
            return 0
        await import_tokens(store, settings.state_dir)
        return await _token(options, store)
    finally:
        await store.close()


async def _token(options: argparse.Namespace, store: Store) -> int:
    from argosy.infra.system import SystemClock, new_token
    from argosy.server.tokens import Tokens

    tokens = Tokens(store)
    if options.list:
        print("\n".join(await tokens.names()))  # noqa: T201
        return 0
    if options.remove:
        if not await tokens.remove(options.name):
            raise ArgosyError("not-found", f"there is no token `{options.name}`", hint="`--list` shows names")
        return 0
    secret = new_token()
    await tokens.add(secret, name=options.name, scope=options.scope, now_ms=SystemClock().now_ms())
    print(secret)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
