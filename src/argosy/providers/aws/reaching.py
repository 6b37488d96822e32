"""The way to a machine's agent: ssh with a key of ours to a host whose own key is known before it boots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.model.ids import Clock, Ids
from argosy.providers.aws.keys import Keys
from argosy.providers.aws.states import Machine

if TYPE_CHECKING:
    from argosy.infra.ssh import Ssh, SshTarget

BOOT_S: Final = 10.0  # one call waits at most so long for sshd to answer
_TRY_S, _STEP_S = 1.0, 0.05
_SSH_PORT: Final = 22


class Reaching:
    """Channels to agents. `private`: machines are reached by their addresses inside the VPC."""

    def __init__(
        self, folder: Path, *, keys: Keys, clock: Clock, ids: Ids, zipapp: Callable[[], Path], private: bool
    ) -> None:
        self._folder, self._keys, self._clock, self._ids = folder, keys, clock, ids
        self._zipapp, self._private = zipapp, private
        self._made_ssh: Ssh | None = None
        self._sockets: dict[str, str] = {}  # by the key of a target: where the agent listens
        self._starting: dict[str, asyncio.Lock] = {}

    async def open(self, machine: Machine) -> Channel:
        """A stream to the agent, which is started when it is not there. Raises `Unreachable`, and what
        `start_agent` raises for a machine that cannot have one."""
        to = self._target(machine)
        ssh = self._ssh()
        async with self._starting.setdefault(machine.address, asyncio.Lock()):
            if to.key not in self._sockets:
                await self._start(ssh, to, machine)
        try:
            return await ssh.open(to, self._sockets[to.key])
        except border.Unreachable:
            self._sockets.pop(to.key, None)  # the machine, or the agent, began anew: the next call starts it
            raise

    async def forget(self, machine: Machine) -> None:
        """The machine goes: so does what leads to it."""
        self._starting.pop(machine.address, None)
        if self._made_ssh is not None:
            to = self._target(machine)
            self._sockets.pop(to.key, None)
            await self._made_ssh.drop(to)
        self._known_hosts(machine.claim_id).unlink(missing_ok=True)

    async def _start(self, ssh: Ssh, to: SshTarget, machine: Machine) -> None:
        from argosy.infra.bootstrap import AgentPlan, start_agent

        await self._answers(to.host)
        zipapp = await asyncio.to_thread(self._zipapp)
        plan = AgentPlan(name=machine.id, options=("--notice=aws",))
        place = await start_agent(ssh, to, zipapp, plan)
        self._sockets[to.key] = place.socket

    async def _answers(self, host: str) -> None:
        """Waits until something listens for ssh. A machine that boots refuses, or is silent."""
        ends_s = self._clock.monotonic_s() + BOOT_S
        while True:
            try:
                async with asyncio.timeout(_TRY_S):
                    _, writer = await asyncio.open_connection(host, _SSH_PORT)
                writer.close()
                return
            except (OSError, TimeoutError):
                if self._clock.monotonic_s() > ends_s:
                    raise border.Unreachable(f"{host} does not answer on port {_SSH_PORT} yet") from None
            await asyncio.sleep(_STEP_S)

    def _target(self, machine: Machine) -> SshTarget:
        from argosy.infra.ssh import SshTarget

        host = machine.private_ip if self._private else machine.public_ip or machine.private_ip
        if not host:
            raise border.Unreachable(f"{machine.id} has no address yet")
        known = self._known_hosts(machine.claim_id)
        alias = f"argosy-{machine.claim_id}"
        if not known.exists():
            known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            known.write_text(f"{alias} {self._keys.host_key(machine.claim_id)}\n")
        return SshTarget(
            host=host,
            user=machine.user,
            port=_SSH_PORT,
            key_file=str(self._keys.identity),
            alias=alias,
            config_file="/dev/null",
            known_hosts=str(known),
            host_keys="strict",
        )

    def _known_hosts(self, claim_id: str) -> Path:
        return self._folder / "known_hosts" / claim_id

    def _ssh(self) -> Ssh:
        if self._made_ssh is None:
            from argosy.infra.ssh import Ssh

            self._made_ssh = Ssh(self._folder / "ssh", self._ids)
        return self._made_ssh
