"""The process that stays on a host and does orders there without a session for each (`argosy.agent.starter`).

It only saves time: when it is gone or fails, the ordinary way over ssh is used, which starts a new one.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_http import receive_answer, send_request
from argosy.infra.agent_port import Channel
from argosy.infra.bootstrap import AgentPlan, StartAnswer
from argosy.infra.ssh import Ssh, SshTarget

_ORDER_S: Final = 90.0
_THROUGH_S: Final = 10.0
_LOST: Final = (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError, msgspec.MsgspecError)


class StarterGone(Exception):
    """Nobody has answered; what was ordered may have been done, and is to be repeated."""


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    errand: msgspec.Raw
    plan: AgentPlan | None = None


class _Through(msgspec.Struct, frozen=True, kw_only=True):
    socket: str


class _NotThrough(msgspec.Struct, frozen=True, kw_only=True):
    error: str = ""


class Starter:
    """The one of a host, as far as it is known; `socket` is "" where there is none."""

    def __init__(self) -> None:
        self.socket = ""
        self.may_come = True  # False: the host has not left one behind
        self.coming = asyncio.Lock()  # who goes the long way, for it to be there for all others

    async def start(self, ssh: Ssh, to: SshTarget, errand: msgspec.Raw, plan: AgentPlan) -> StartAnswer:
        """Do the errand and start an agent. Raises `StarterGone`."""
        answer = await self._order(ssh, to, _Order(errand=errand, plan=plan))
        return msgspec.json.decode(answer, type=StartAnswer)

    async def errand(self, ssh: Ssh, to: SshTarget, errand: msgspec.Raw) -> bytes:
        """Do an errand; its answer, as JSON. Raises `StarterGone`."""
        return await self._order(ssh, to, _Order(errand=errand))

    async def through(self, ssh: Ssh, to: SshTarget, socket: str) -> Channel:
        """A stream to an agent of that host. Raises `StarterGone`; `border.Unreachable` where no agent
        listens: who asks in another way hears the same, and it costs the host a session."""
        channel = await self._channel(ssh, to)
        try:
            async with asyncio.timeout(_THROUGH_S):
                await send_request(
                    channel, "POST", "/through", [msgspec.json.encode(_Through(socket=socket))]
                )
                status, answer = await receive_answer(channel)
            if status == 101:
                return channel
            refused = msgspec.json.decode(answer, type=_NotThrough)
        except _LOST:
            self.socket = ""
        except BaseException:
            channel.writer.close()
            raise
        else:
            channel.writer.close()
            if refused.error == "transient":
                raise border.Unreachable(
                    f"no agent answers at {socket} of {to.label}: no agent listens there"
                )
            raise StarterGone
        channel.writer.close()
        raise StarterGone

    async def _order(self, ssh: Ssh, to: SshTarget, order: _Order) -> bytes:
        channel = await self._channel(ssh, to)
        try:
            async with asyncio.timeout(_ORDER_S):
                await send_request(channel, "POST", "/order", [msgspec.json.encode(order)])
                status, answer = await receive_answer(channel)
            if status == 200 and msgspec.json.decode(answer, type=StartAnswer).error != "failed":
                return answer
        except _LOST:
            pass
        finally:
            channel.writer.close()
        self.socket = ""
        raise StarterGone

    async def _channel(self, ssh: Ssh, to: SshTarget) -> Channel:
        if not self.socket:
            raise StarterGone
        try:
            return await ssh.open(to, self.socket)
        except border.BorderError:
            self.socket = ""
            raise StarterGone from None
