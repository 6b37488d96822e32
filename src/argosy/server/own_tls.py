"""TLS of the door over TCP: a certificate of one's own, one that this server signs itself, or one of an
authority that speaks ACME. A newer one is used without a restart.

Wrong certificates are refused at the start with the file and what is wrong with it; later a wrong new one is
told, and the old one stays.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import shlex
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.infra.system import throw_dice
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock

if TYPE_CHECKING:
    from argosy.gateway.tls import Certificates
    from argosy.infra.acme import Membership, Solver
    from argosy.infra.acme_kept import Kept

_log: Final = logging.getLogger(__name__)
_LOOK_S: Final = 30.0  # how often files are looked at
_WARN_DAYS: Final = 14
_ANY: Final = ("", "0.0.0.0", "[::]")  # noqa: S104  no names
MODES: Final = ("files", "generated", "acme")


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """Of ACME, and how it is shown that the hosts are ours."""

    directory: str
    ca: str = ""  # certificates that it is trusted by; "": those of this machine
    email: str = ""
    account: str = ""  # that it knows already, where it wants one
    account_key_file: str = ""
    http: str = ""  # HOST:PORT for proofs
    dns: tuple[str, ...] = ()  # the command that makes records, in place of HTTP


class TlsWish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    mode: str  # one of MODES
    folder: Path  # of what is made here
    certificate: str = ""  # files: with its chain
    key: str = ""
    names: tuple[str, ...] = ()  # generated, acme: hosts and addresses
    authority: Authority | None = None

    @property
    def trusted(self) -> str:
        """The file that clients trust this server by; "": they know who signed it."""
        if self.mode == "acme":
            return self.authority.ca if self.authority is not None else ""
        return self.certificate or str(self.folder / "ca.pem")


def parse_tls(environ: Mapping[str, str], home: Path, listen: str, hosts: frozenset[str]) -> TlsWish | None:
    """From ARGOSY_TLS, ARGOSY_TLS_CERT, _KEY, _DOMAINS and ARGOSY_ACME_*; None: no TLS. Raises `usage`."""
    certificate, key = environ.get("ARGOSY_TLS_CERT", ""), environ.get("ARGOSY_TLS_KEY", "")
    if bool(certificate) != bool(key):
        raise ArgosyError("usage", "ARGOSY_TLS_CERT and ARGOSY_TLS_KEY belong together", hint="set both")
    mode = environ.get("ARGOSY_TLS", "") or ("files" if certificate else "")
    mode = "generated" if mode == "generate" else mode
    if not mode or not listen:
        return None
    if mode not in MODES or (mode == "files") != bool(certificate):
        raise ArgosyError(
            "usage",
            f"ARGOSY_TLS is `{mode}`: `generated` or `acme`, without ARGOSY_TLS_CERT",
            hint="a certificate of your own is named with ARGOSY_TLS_CERT and ARGOSY_TLS_KEY alone",
        )
    folder, domains = home / "tls", tuple(environ.get("ARGOSY_TLS_DOMAINS", "").replace(",", " ").split())
    if mode == "files":
        return TlsWish(mode=mode, folder=folder, certificate=certificate, key=key)
    host = listen.rpartition(":")[0]
    if mode == "generated":
        names = dict.fromkeys((*domains, *sorted(hosts), *(() if host in _ANY else (host.strip("[]"),))))
        return TlsWish(mode=mode, folder=folder, names=tuple(names))
    if not domains:
        raise ArgosyError(
            "usage",
            "ARGOSY_TLS is `acme`, and ARGOSY_TLS_DOMAINS names no host",
            hint="name the hosts of the certificate: `--domain argosy.example`",
        )
    return TlsWish(mode=mode, folder=folder, names=domains, authority=_authority(environ, domains, host))


def _authority(environ: Mapping[str, str], domains: tuple[str, ...], host: str) -> Authority:
    command = tuple(shlex.split(environ.get("ARGOSY_ACME_DNS_COMMAND", "")))
    wild = next((each for each in domains if each.startswith("*.")), "")
    if wild and not command:
        raise ArgosyError(
            "usage",
            f"a certificate for `{wild}` is given for a record in the DNS only",
            hint="ARGOSY_ACME_DNS_COMMAND names the command that makes it: COMMAND add|remove NAME TEXT",
        )
    from argosy.infra.acme import LETS_ENCRYPT

    return Authority(
        directory=environ.get("ARGOSY_ACME_DIRECTORY", "") or LETS_ENCRYPT,
        ca=environ.get("ARGOSY_ACME_CA", ""),
        email=environ.get("ARGOSY_ACME_EMAIL", ""),
        account=environ.get("ARGOSY_ACME_ACCOUNT", ""),
        account_key_file=environ.get("ARGOSY_ACME_ACCOUNT_KEY_FILE", ""),
        http="" if command else environ.get("ARGOSY_ACME_HTTP", "") or f"{host}:80",
        dns=command,
    )


class OwnTls:
    """The certificate that is in use, and what brings the next one. Makes what has to be made at once."""

    def __init__(self, wish: TlsWish, clock: Clock) -> None:
        """Raises `usage` with what is wrong with the certificate."""
        self.wish, self._clock = wish, clock
        self._kept: Kept | None = None
        self._told: set[str] = set()  # what was wrong when it was looked at last
        self._current = self._load(self._files())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.context.sni_callback = lambda connection, name, _: self._current.choose(connection, name)

    def words(self) -> str:
        """For people: which certificate, until when, and what is wrong."""
        ends = self._current.ends.strftime("%Y-%m-%d")
        failed = self._kept.failure(self.wish.names) if self._kept is not None else None
        what = {"files": self.wish.certificate, "generated": "signed by this server", "acme": "by ACME"}
        text = f"{', '.join(self._current.names)}, until {ends} ({what[self.wish.mode]})"
        return text + (f"; no newer one: {failed.why}" if failed is not None else "")

    async def run(self, solver: Solver | None = None) -> None:
        """Use what is new, for ever. `solver`: how an authority is shown that the hosts are ours."""
        if self.wish.authority is not None and solver is not None:
            self._kept = keeper_of(self.wish.authority, self.wish.folder / "acme", solver, self._clock)
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Ask the authority if it is time, and read files that changed. Never raises."""
        if self._kept is not None and await self._kept.renew(self.wish.names) is not None:
            self.reload()
            return
        if self.wish.mode == "generated":
            await asyncio.to_thread(self._files)
        self._tell(self._current.renew(self._now()))

    def reload(self) -> None:
        """Read the files now; what is wrong with them is told, and the old certificate stays."""
        try:
            self._current = self._load(self._files())
            _log.info("TLS: %s", self.words())
        except ArgosyError as error:
            self._tell([error.what])

    def _tell(self, wrong: list[str]) -> None:
        left = self._current.ends - self._now()
        if left < datetime.timedelta(days=_WARN_DAYS):
            wrong = [*wrong, f"the certificate ends on {self._current.ends:%Y-%m-%d}"]
        for each in wrong:
            if each not in self._told:
                _log.warning("TLS: %s", each)
        self._told = set(wrong)

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self._clock.now_ms() / 1000, datetime.UTC)

    def _files(self) -> tuple[str, str]:
        """Of the certificate that is to be used now. An authority's is awaited with one that we sign."""
        if self.wish.mode == "files":
            return self.wish.certificate, self.wish.key
        if self.wish.mode == "acme":
            from argosy.infra.acme_kept import certificate_in

            path = certificate_in(self.wish.folder / "acme", self.wish.names, self._clock.now_ms())
            if path is not None:
                return str(path), str(path)
        from argosy.gateway.own_certificate import ensure_signed

        made = ensure_signed(self.wish.folder, self.wish.names, self._clock.now_ms() / 1000)
        return str(made[0]), str(made[1])

    def _load(self, files: tuple[str, str]) -> Certificates:
        from argosy.gateway.tls import Certificates, Files

        try:
            return Certificates([Files(certificate=files[0], key=files[1])], self._now())
        except ValueError as error:
            raise ArgosyError(
                "usage",
                str(error),
                hint="ARGOSY_TLS_CERT and ARGOSY_TLS_KEY name PEM files; the chain follows the certificate",
            ) from None


def keeper_of(authority: Authority, folder: Path, solver: Solver, clock: Clock) -> Kept:
    """Certificates of this authority in a folder, asked for over the network."""
    from argosy.infra.acme import Acme
    from argosy.infra.acme_kept import Kept
    from argosy.infra.acme_keys import AccountKey
    from argosy.infra.web_asking import Heard, ask

    async def asked(method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> Heard:
        return await ask(method, url, headers=headers, body=body, ca_file=authority.ca)

    def account(key: AccountKey) -> Acme:
        return Acme(
            authority.directory,
            key,
            ask=asked,
            clock=clock,
            pause=asyncio.sleep,
            membership=_membership(authority),
        )

    return Kept(folder, account, solver, clock=clock, dice=throw_dice, pause=asyncio.sleep)


def _membership(authority: Authority) -> Membership:
    from argosy.infra.acme import Membership

    secret = Path(authority.account_key_file).read_text().strip() if authority.account else ""
    contact = (authority.email,) if authority.email else ()
    return Membership(contact=contact, outside=authority.account, outside_secret=secret)
