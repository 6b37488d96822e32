"""The way to a machine's agent: ssh with a key of ours to a host whose own key is known before it boots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.machine_keys import Keys
from argosy.model.ids import Clock, Ids

if TYPE_CHECKING:
    from argosy.infra.ssh import Ssh, SshTarget

BOOT_S: Final = 10.0  # one call waits at most so long for sshd to answer
_TRY_S, _STEP_S = 1.0, 0.05
_SSH_PORT: Final = 22


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in to one machine that was made for a claim."""

    address: str  # of the node: the same as long as the machine is the same
    name: str  # of the agent
    claim_id: str
    host: str  # where sshd listens; "": not known yet
    user: str
    port: int = _SSH_PORT
    options: tuple[str, ...] = ()  # more arguments of the agent's `serve`
    jumps: tuple[str, ...] = ()  # hosts on the way, people's own
    new_key: bool = False  # the machine made its host key itself: the first one seen is kept


class MachineSsh:
    """Channels to agents on machines that were made with `Keys.user_data`."""

    def __init__(
        self, folder: Path, *, keys: Keys, clock: Clock, ids: Ids, zipapp: Callable[[], Path]
    ) -> None:
        self._folder, self._keys, self._clock, self._ids = folder, keys, clock, ids
        self._zipapp = zipapp
        self._made_ssh: Ssh | None = None
        self._sockets: dict[str, str] = {}  # by the key of a target: where the agent listens
        self._starting: dict[str, asyncio.Lock] = {}

    async def open(self, door: Door) -> Channel:
        """A stream to the agent, which is started when it is not there. Raises `Unreachable`, and what
        `start_agent` raises for a machine that cannot have one."""
        to = self._target(door)
        ssh = self._ssh()
        async with self._starting.setdefault(door.address, asyncio.Lock()):
            if to.key not in self._sockets:
                await self._start(ssh, to, door)
        try:
            return await ssh.open(to, self._sockets[to.key])
        except border.Unreachable:
            self._sockets.pop(to.key, None)  # the machine, or the agent, began anew: the next call starts it
            raise

    async def forget(self, door: Door) -> None:
        """The machine goes: so does what leads to it."""
        self._starting.pop(door.address, None)
        if self._made_ssh is not None and door.host:
            to = self._target(door)
            self._sockets.pop(to.key, None)
            await self._made_ssh.drop(to)
        self._known_hosts(door.claim_id).unlink(missing_ok=True)

    async def _start(self, ssh: Ssh, to: SshTarget, door: Door) -> None:
        from argosy.infra.bootstrap import AgentPlan, start_agent

        if not to.jumps:
            await self._answers(to.host, to.port)
        zipapp = await asyncio.to_thread(self._zipapp)
        plan = AgentPlan(name=door.name, options=door.options)
        place = await start_agent(ssh, to, zipapp, plan)
        self._sockets[to.key] = place.socket

    async def _answers(self, host: str, port: int) -> None:
        """Waits until something listens for ssh. A machine that boots refuses, or is silent."""
        ends_s = self._clock.monotonic_s() + BOOT_S
        while True:
            try:
                async with asyncio.timeout(_TRY_S):
                    _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return
            except (OSError, TimeoutError):
                if self._clock.monotonic_s() > ends_s:
                    raise border.Unreachable(f"{host} does not answer on port {port} yet") from None
            await asyncio.sleep(_STEP_S)

    def _target(self, door: Door) -> SshTarget:
        from argosy.infra.ssh import SshTarget

        if not door.host:
            raise border.Unreachable(f"{door.name} has no address yet")
        known = self._known_hosts(door.claim_id)
        alias = f"argosy-{door.claim_id}"
        if not known.exists():
            known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            known.write_text("" if door.new_key else f"{alias} {self._keys.host_key(door.claim_id)}\n")
        return SshTarget(
            host=door.host,
            user=door.user,
            port=door.port,
            key_file=str(self._keys.identity),
            jumps=door.jumps,
            own_jumps=bool(door.jumps),
            alias=f"{alias}-{door.name}" if door.new_key else alias,
            config_file="/dev/null",
            known_hosts=str(known),
            host_keys="accept-new" if door.new_key else "strict",
        )

    def _known_hosts(self, claim_id: str) -> Path:
        return self._folder / "known_hosts" / claim_id

    def _ssh(self) -> Ssh:
        if self._made_ssh is None:
            from argosy.infra.ssh import Ssh

            self._made_ssh = Ssh(self._folder / "ssh", self._ids)
        return self._made_ssh
