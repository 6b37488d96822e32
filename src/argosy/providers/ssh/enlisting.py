"""`argosy pool add` and what follows: hosts are examined, written down, closed, opened and taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.infra import border
from argosy.infra.provider import Setting
from argosy.infra.ssh_target import SshTarget
from argosy.model.enlisting import HostOrder, HostReport, HostState
from argosy.model.errors import ArgosyError, suggest
from argosy.providers.ssh import MANIFEST
from argosy.providers.ssh.known import Known, describe, facts_of
from argosy.providers.ssh.pools import Host, State, check_name, parse_host
from argosy.providers.ssh.reached import Look, Reached

if TYPE_CHECKING:
    from argosy.providers.ssh.driver import Driver

_INSTALL: Final = (
    "umask 077; mkdir -p ~/.ssh && key=$(cat) && touch ~/.ssh/authorized_keys && "
    'grep -qxF -- "$key" ~/.ssh/authorized_keys || printf "%s\\n" "$key" >> ~/.ssh/authorized_keys'
)


class _Asks(Exception):
    """Somebody has to answer before it goes on."""

    def __init__(self, report: HostReport) -> None:
        super().__init__(report.text)
        self.report = report


class Enlisting:
    def __init__(self, driver: Driver, setting: Setting) -> None:
        self._driver, self._root = driver, setting.root
        self._examined: dict[str, Known] = {}
        self._key_made = asyncio.Lock()

    # -- examining ------------------------------------------------------------------------------------------

    async def examine(self, order: HostOrder) -> HostReport:
        host = self._host(order)
        try:
            host, look = await self._look(host, order)
        except _Asks as asks:
            return asks.report
        except border.BorderError as error:
            return _failed(host, error, had_password=bool(order.password))
        known = Known(host=host, look=look, facts=facts_of(host, look))
        other = self._driver.closed(known, {})
        if other:
            fact, _, fix = other.partition(": ")
            return _report(host, ok=False, text=fact, hint=fix)
        if not look.bash:
            return _report(host, ok=False, text="has no /bin/bash", hint="install bash there: tasks need it")
        self._examined[host.id] = known
        return _report(host, ok=True, text=describe(known), facts=known.facts, python=look.python)

    def _host(self, order: HostOrder) -> Host:
        """Raises ArgosyError `usage`."""
        try:
            user, address, port = parse_host(order.host)
            check_name(order.pool)
            name = order.name or address
            if ":" not in name:  # an IPv6 address may be a name
                check_name(name)
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise ArgosyError("usage", what, hint=hint) from None
        return Host(
            pool=order.pool,
            name=name,
            address=address,
            user=user or order.user,
            port=port or order.port,
            key_file=order.key_file,
            jumps=order.jumps,
            config_file=order.config_file,
            folder=order.folder or "~/.argosy",
            labels=order.labels,
            domains=order.domains,
            host_keys="strict",
        )

    async def _look(self, host: Host, order: HostOrder) -> tuple[Host, Look]:
        """Look at a host whose key is known: to ssh's own configuration, or to us. Raises `_Asks`."""
        ours = self._root / "known_hosts"
        for known_hosts in ("", str(ours)):
            if known_hosts and not ours.exists():
                continue
            tried = msgspec.structs.replace(host, known_hosts=known_hosts)
            try:
                return await self._look_as(tried, order.password)
            except border.RequestRefused as error:
                if error.field != "host_key" or "not known" not in str(error):
                    raise
        host = msgspec.structs.replace(host, known_hosts=str(ours))
        shown = await self._driver.ssh.host_key(host.target())
        if order.host_key != shown.fingerprint and not order.accepts_new_keys:
            text = f"shows a host key that is not known: {shown.fingerprint}"
            hint = (
                f"compare it with `ssh-keygen -lf /etc/ssh/ssh_host_{shown.kind}_key.pub` on the host, then "
                "accept it here, or give `--accept-new-host-keys`"
            )
            more = {"asks": "host-key", "fingerprint": shown.fingerprint}
            raise _Asks(_report(host, ok=False, text=text, hint=hint, **more))
        with ours.open("a") as file:
            file.write(shown.line + "\n")
        ours.chmod(0o600)
        return await self._look_as(host, order.password)

    async def _look_as(self, host: Host, password: str) -> tuple[Host, Look]:
        """Look at it with the keys that there are; else log in once by password, and install a key."""
        driver = self._driver
        zipapp = await asyncio.to_thread(lambda: driver.zipapp)
        try:
            return host, await Reached(driver.ssh, host, zipapp).look(probe=True)
        except border.CredentialsRejected:
            if host.key_file and not password:
                raise
            own = await self._own_key()
            ours = msgspec.structs.replace(host, key_file=str(own))
            try:  # it may have been installed before
                return ours, await Reached(driver.ssh, ours, zipapp).look(probe=True)
            except border.CredentialsRejected:
                pass
            if not password:
                raise
        await self._install_key(host.target(), own, password)
        return ours, await Reached(driver.ssh, ours, zipapp).look(probe=True)

    async def _own_key(self) -> Path:
        """A key of this server alone, made when it is first needed."""
        path = self._root / "id_ed25519"
        async with self._key_made:
            if not path.exists():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                process = await asyncio.create_subprocess_exec(
                    "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "argosy", "-f", str(path)
                )
                if await process.wait():
                    raise border.Transient("ssh-keygen cannot make a key", 10)
        return path

    async def _install_key(self, to: SshTarget, key: Path, password: str) -> None:
        public = await asyncio.to_thread(key.with_suffix(".pub").read_bytes)
        with self._driver.ssh.with_password(to, password):
            try:
                ran = await self._driver.ssh.run(to, _INSTALL, data=public)
            finally:
                await self._driver.ssh.drop(to)
        if ran.status:
            said = ran.err.strip().splitlines()
            raise border.RequestRefused(
                "password", f"the key cannot be written to ~/.ssh/authorized_keys: {said[-1] if said else ''}"
            )

    # -- writing down ---------------------------------------------------------------------------------------

    async def enlist(self, orders: Sequence[HostOrder]) -> None:
        files = self._driver.files
        written = {host.id: host for host in files.written()}
        theirs = {host.pool for host in self._driver.pools().hosts.values() if host.source}
        for order in orders:
            host = self._host(order)
            if host.pool in theirs:
                raise ArgosyError(
                    "conflict",
                    f"the pool `{host.pool}` is written in a file",
                    hint="add the host there; `argosy pool hosts` says which file it is",
                )
            examined = self._examined.pop(host.id, None)
            written[host.id] = examined.host if examined is not None else host
            if examined is not None:
                self._driver.know(examined)
        files.write(list(written.values()))
        self._driver.look_again()

    async def enlisted(self) -> Sequence[HostState]:
        driver = self._driver
        pools, closed = driver.pools(), driver.files.closed()
        if tasks := driver.look_again():
            await asyncio.wait(tasks, timeout=2.0)
        states = []
        for id, host in pools.hosts.items():
            known = driver.known(id)
            assert known is not None
            why = driver.closed(known, closed)
            states.append(
                HostState(
                    provider=MANIFEST.name,
                    pool=host.pool,
                    name=host.name,
                    address=host.target().label,
                    state=closed[id].state if id in closed else "closed" if why else "open",
                    why=known.problem or why,
                    source=host.source,
                    facts=known.facts,
                    python=known.look.python if known.look is not None else "",
                    claims=len(self._claims_on(id)),
                )
            )
        return states

    def _claims_on(self, host_id: str) -> list[str]:
        records = self._driver.claims.records()
        return [id for id, each in records.items() if any(spot.host == host_id for spot in each.spots)]

    # -- closing and taking out -----------------------------------------------------------------------------

    async def close(self, hosts: Sequence[str], state: str) -> Sequence[str]:
        ids = self._meant(hosts)
        self._driver.files.close(ids, msgspec.convert(state, State), self._driver.now_ms())
        return ids

    async def dismiss(self, hosts: Sequence[str], *, force: bool) -> Sequence[str]:
        ids = self._meant(hosts)
        pools, files = self._driver.pools(), self._driver.files
        for id in ids:
            if source := pools.hosts[id].source:
                raise ArgosyError("conflict", f"`{id}` is written in {source}", hint="take it out there")
            if (held := len(self._claims_on(id))) and not force:
                some = "1 claim holds" if held == 1 else f"{held} claims hold"
                raise ArgosyError(
                    "conflict",
                    f"`{id}` is in use: {some} something there",
                    hint=f"`argosy pool drain {id}` first; `--force` gives up what runs there",
                )
        files.write([host for host in files.written() if host.id not in ids])
        files.close(ids, "")
        self._driver.pools()
        return ids

    def _meant(self, names: Sequence[str]) -> list[str]:
        """Ids of `gpu1`, `lab/gpu1` or `lab`. Raises `not-found`, `conflict`."""
        hosts = self._driver.pools().hosts
        found: list[str] = []
        for name in names:
            mine = [id for id, host in hosts.items() if name in (id, host.pool, host.name)]
            exact = [id for id in mine if id == name or hosts[id].pool == name] or mine
            if not exact:
                known = [
                    *hosts,
                    *{host.pool for host in hosts.values()},
                    *(host.name for host in hosts.values()),
                ]
                hint = suggest(name, known, otherwise="`argosy pool hosts` lists them")
                raise ArgosyError("not-found", f"there is no host or pool `{name}`", hint=hint)
            if len(exact) > 1 and not any(hosts[id].pool == name for id in exact):
                listed = ", ".join(f"`{id}`" for id in exact)
                raise ArgosyError("conflict", f"`{name}` is in several pools", hint=f"write one of {listed}")
            found += exact
        return list(dict.fromkeys(found))


def _report(host: Host, *, ok: bool, text: str, **more: object) -> HostReport:
    return HostReport(
        provider=MANIFEST.name,
        pool=host.pool,
        name=host.name,
        address=host.target().label,
        ok=ok,
        text=text,
        **more,  # type: ignore[arg-type]
    )


def _failed(host: Host, error: border.BorderError, *, had_password: bool) -> HostReport:
    fact, _, fix = str(error).partition(": ")
    asks = ""
    if isinstance(error, border.CredentialsRejected):
        takes = "password" in fact or "keyboard-interactive" in fact
        asks = "password" if takes and not had_password else ""
        if had_password:
            fact, fix = (
                f"{host.target().label} refuses the password",
                "try again, or name a key: `--identity FILE`",
            )
    return _report(host, ok=False, text=fact, hint=fix, asks=asks)
