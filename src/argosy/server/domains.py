"""Domains of services: certificates of their own, or from an authority that speaks ACME, for the gateways of
this machine; and whether a domain points here."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from argosy.api.services import OwnCertificate
from argosy.gateway.private_files import replace_file
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.routes import Listening

if TYPE_CHECKING:
    from argosy.infra.acme import Proof
    from argosy.infra.acme_kept import Kept

_log: Final = logging.getLogger(__name__)
CERTIFICATES: Final = "certificates"
PROOFS: Final = "proofs"


def keep_own(
    folder: Path, service: str, certificate: OwnCertificate, hosts: Iterable[str], now_ms: int
) -> None:
    """Keep the certificate of a service for the gateways whose sockets are in `folder`, in one file with its
    key. Raises `spec-invalid` when they do not belong together, are over, or name another host."""
    from argosy.gateway.tls import Certificates, Files

    place = folder / CERTIFICATES / f"{service}.pem"
    draft = place.with_suffix(".draft")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    told_in = f"{certificate.key.strip()}\n{certificate.certificate.strip()}\n"
    replace_file(draft, told_in.encode())
    try:
        told = Files(certificate=str(draft), key=str(draft))
        found = Certificates([told], _moment(now_ms))
        for host in hosts:
            if not found.covers(host.encode()):
                raise ValueError(f"the certificate is not for the domain `{host}`")
    except ValueError as error:
        draft.unlink(missing_ok=True)
        raise ArgosyError(
            "spec-invalid",
            str(error).replace(str(draft), "of `service.tls`"),
            hint="`certfile` is the certificate with its chain, `keyfile` its key, both in PEM",
        ) from None
    draft.replace(place)


def drop_own(folder: Path, service: str) -> None:
    """A service is gone."""
    (folder / CERTIFICATES / f"{service}.pem").unlink(missing_ok=True)


async def about_domains(hosts: Sequence[str], listening: Listening) -> list[str]:
    """What is to be done so that the domains of a service answer, in sentences."""
    if hosts and listening.is_local:
        return [
            f"nobody outside reaches the gateway of this machine: `{hosts[0]}` answers when one listens, as "
            "with `argosy gateway run --listen 0.0.0.0:80 --tls 0.0.0.0:443`"
        ]
    found = [await points_elsewhere(each) for each in hosts if not each.startswith("*")]
    return [each for each in found if each]


async def points_elsewhere(
    host: str, resolve: Callable[[str], Awaitable[set[str]]] | None = None, mine: set[str] | None = None
) -> str:
    """What is wrong with where a domain points, in a sentence; "": it points to this machine, or nobody can
    say."""
    there = await (resolve or _addresses)(host)
    here = mine if mine is not None else await asyncio.to_thread(own_addresses)
    if not there:
        return f"the domain `{host}` points nowhere yet: let it point to this machine"
    if there & here:
        return ""
    return f"the domain `{host}` points to {', '.join(sorted(there))}, which is no address of this machine"


async def _addresses(host: str) -> set[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(each[4][0]) for each in found}


def own_addresses() -> set[str]:
    """Of all interfaces, as far as the kernel tells."""
    found = {"127.0.0.1", "::1"}
    for probe in (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)):
        with socket.socket(probe[1], socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((probe[0], 9))  # sends nothing: the kernel chooses the address
                found.add(str(sock.getsockname()[0]))
            except OSError:
                continue
    try:
        found |= {str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        pass
    return found


class FileProofs:
    """Proofs over plain HTTP, which every gateway of the folder answers (`infra.acme.Solver`)."""

    kind = "http-01"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PROOFS

    async def show(self, proof: Proof) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._folder / proof.token, proof.text.encode())

    async def hide(self, proof: Proof) -> None:
        (self._folder / proof.token).unlink(missing_ok=True)


class Domains:
    """Keeps certificates for the domains of services that have none of their own."""

    def __init__(self, folder: Path, kept: Kept, clock: Clock) -> None:
        self._folder, self._kept, self._clock = folder, kept, clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, hosts: Iterable[str]) -> None:
        """These are the domains of services now."""
        own = self._own_names()
        wanted = {
            host
            for host in hosts
            if not (host.startswith("*") or host in own or "*." + host.partition(".")[2] in own)
        }
        for host in self._tasks.keys() - wanted:
            self._tasks.pop(host).cancel()
        for host in wanted - self._tasks.keys():
            self._tasks[host] = asyncio.get_running_loop().create_task(self._keep(host))

    async def _keep(self, host: str) -> None:
        await self._kept.keep((host,), lambda path: _log.info("the gateways use %s", path.name))

    def _own_names(self) -> set[str]:
        """The hosts of certificates that people gave with their services."""
        from argosy.gateway.tls import Certificate, Files

        found: set[str] = set()
        for path in (self._folder / CERTIFICATES).glob("svc-*.pem"):
            try:
                told = Files(certificate=str(path), key=str(path))
                found.update(Certificate(told, _moment(self._clock.now_ms())).names)
            except ValueError:
                continue
        return found

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()


def domains_of(folder: Path, clock: Clock, environ: Mapping[str, str] = os.environ) -> Domains | None:
    """With `ARGOSY_GATEWAY_TLS=acme` certificates come from the authority of `ARGOSY_ACME_DIRECTORY` (Let's
    Encrypt where none is named); `ARGOSY_ACME_EMAIL` is told to it, `ARGOSY_ACME_CA` trusted for it. Who sets
    it agrees to its terms. None: there are only certificates of one's own."""
    if environ.get("ARGOSY_GATEWAY_TLS") != "acme":
        return None
    from argosy.infra.acme import LETS_ENCRYPT
    from argosy.server.own_tls import Authority, keeper_of

    authority = Authority(
        directory=environ.get("ARGOSY_ACME_DIRECTORY", "") or LETS_ENCRYPT,
        ca=environ.get("ARGOSY_ACME_CA", ""),
        email=environ.get("ARGOSY_ACME_EMAIL", ""),
    )
    kept = keeper_of(authority, folder / CERTIFICATES, FileProofs(folder), clock)
    return Domains(folder, kept, clock)


def _moment(now_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
