"""`python -m argosy.gateway.tunnel accept|open`: one end of tunnels, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import hashlib
import json
import random
import re
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from argosy.gateway.addresses import parse_address
from argosy.gateway.own_certificate import ensure_certificate
from argosy.gateway.run import DataPlane, Sockets, bind, load_certificates, renew_certificates, stop_event
from argosy.gateway.run import Settings as Plane
from argosy.gateway.tunnel_accept import Gate
from argosy.gateway.tunnel_greeting import NAME, NotGreeted, parse_allowed
from argosy.gateway.tunnel_open import SPREAD_S, Opener, Settings
from argosy.model.errors import ArgosyError

_PRIVATE: Final = 0o700
_WORDS: Final = {
    "listening": "accepting tunnels at",
    "serving": "serving requests at",
    "certificate": "the other end may say --pin",
}


class Accepting(msgspec.Struct, frozen=True, kw_only=True):
    """Of the accepting end. Places are HOST:PORT."""

    listen: str
    certificates: tuple[tuple[str, str], ...]  # files of certificates and their keys
    made: tuple[str, ...] = ()  # without `certificates`: a folder for one that is made, and hosts in it
    tokens: str  # file
    sockets: str  # folder
    published: dict[str, str]  # name to place: any bytes
    http: tuple[str, ...] = ()
    https: tuple[str, ...] = ()


Say = Callable[[str, str, str], None]


async def accept(settings: Accepting, say: Say) -> None:
    """Until SIGTERM. `say` gets what happened ("listening", "up", "down"), of which name, and why. Raises
    OSError, ValueError."""
    stopping = stop_event()
    files = settings.certificates or _make_certificate(settings.made, say)
    plane_settings = Plane(control="", listen=settings.http, tls=settings.https, certificates=files)
    certificates = load_certificates(plane_settings)
    folder = Path(settings.sockets)
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    try:
        allowed = parse_allowed(Path(settings.tokens).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{settings.tokens}: {error}") from None
    unknown = [name for name in settings.published if name not in allowed]
    if unknown:
        raise ValueError(f"{settings.tokens} has no line for `{unknown[0]}`, which is to be published")
    plane = DataPlane(plane_settings)
    generation = 0

    def changed(name: str, what: str, why: str) -> None:
        nonlocal generation
        generation += 1
        plane.router.take_table(gate.table(generation))
        if name:
            say(what, name, why)

    gate = Gate(allowed, folder, changed)
    changed("", "", "")
    plain, secure = [bind(each) for each in settings.http], [bind(each) for each in settings.https]
    await plane.listen(Sockets(plain, [], secure, []))
    place = await gate.listen(certificates.context, settings.listen, settings.published)
    loop = asyncio.get_running_loop()
    keeping = [loop.create_task(gate.keep()), loop.create_task(renew_certificates(certificates))]
    say("listening", "", place)
    for each in plane.places():
        say("serving", "", each)
    await stopping.wait()
    for task in keeping:
        task.cancel()
    gate.close()
    await plane.close()


def _make_certificate(made: Sequence[str], say: Say) -> tuple[tuple[str, str], ...]:
    """Its files; what the other end is to pin is told. None, when none is to be made."""
    if not made:
        return ()
    folder, *hosts = made
    try:
        certificate, key = ensure_certificate(
            Path(folder), hosts, datetime.datetime.now(datetime.UTC).timestamp()
        )
    except ArgosyError as error:
        raise OSError(str(error)) from None
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text("ascii"))
    say("certificate", "", hashlib.sha256(der).hexdigest())
    return ((str(certificate), str(key)),)


async def hold_open(settings: Settings, say: Say) -> None:
    """Until SIGTERM. Raises NotGreeted, OSError."""
    stopping = stop_event()
    opener = Opener(settings, lambda what, why: say(what, settings.name, why), random.random)
    running = asyncio.get_running_loop().create_task(opener.run())
    waiting = asyncio.get_running_loop().create_task(stopping.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    running.cancel()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m argosy.gateway.tunnel", description=__doc__)
    ends = parser.add_subparsers(dest="end", required=True)
    accepting = ends.add_parser("accept")
    accepting.add_argument("--listen", required=True)
    accepting.add_argument("--certificate", action="append", nargs=2, default=[])
    accepting.add_argument("--make-certificate", nargs="+", default=[], metavar="FOLDER HOST")
    accepting.add_argument("--tokens", required=True)
    accepting.add_argument("--sockets", required=True)
    accepting.add_argument("--publish", action="append", default=[])
    accepting.add_argument("--http", action="append", default=[])
    accepting.add_argument("--https", action="append", default=[])
    opening = ends.add_parser("open")
    opening.add_argument("name")
    opening.add_argument("target")
    opening.add_argument("--to", required=True)
    opening.add_argument("--token-file", required=True)
    opening.add_argument("--serves", default="private")
    opening.add_argument("--pin", default="")
    opening.add_argument("--authority", default="")
    opening.add_argument("--spread", type=float, default=SPREAD_S)
    for each in (accepting, opening):
        each.add_argument("--json", action="store_true")
    return parser


def _published(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not equals or not re.fullmatch(r".+:\d+", place):
            raise ValueError(f"`{pair}` is not NAME=HOST:PORT")
        found[name] = place
    return found


def _settings(options: argparse.Namespace) -> Settings:
    if NAME.fullmatch(options.name) is None:
        raise ValueError(f"`{options.name}` is no name of a service")
    if options.pin and re.fullmatch(r"[0-9a-fA-F]{64}", options.pin) is None:
        raise ValueError("a pin is the SHA-256 of a certificate: 64 hexadecimal digits")
    return Settings(
        name=options.name,
        gateway=parse_address(options.to),
        target=parse_address(options.target),
        token_file=options.token_file,
        serves=options.serves,
        pin=options.pin,
        authority=options.authority,
        spread_s=options.spread,
    )


def main(argv: Sequence[str]) -> int:
    """The exit status: 1 with one line that says why."""
    options = _parser().parse_args(argv)
    import uvloop

    say = _say_json if options.json else _say
    try:
        if options.end == "open":
            uvloop.run(hold_open(_settings(options), say))
            return 0
        accepting = Accepting(
            listen=options.listen,
            certificates=tuple((certificate, key) for certificate, key in options.certificate),
            made=tuple(options.make_certificate),
            tokens=options.tokens,
            sockets=str(Path(options.sockets).absolute()),
            published=_published(options.publish),
            http=tuple(options.http),
            https=tuple(options.https),
        )
        uvloop.run(accept(accepting, say))
    except (OSError, ValueError, NotGreeted) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _say(what: str, name: str, why: str) -> None:
    words = _WORDS.get(what, f"{name}: {what},")
    print(f"{words} {why}".strip(" ,"), flush=True)  # noqa: T201


def _say_json(what: str, name: str, why: str) -> None:
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"at": at, "event": what, "name": name, "detail": why}), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
