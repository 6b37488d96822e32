"""Where Slurm's commands run: on the login node that this server stands on, or on one reached by SSH."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from typing import Final, Protocol

from argosy.infra import border
from argosy.infra.agent_client import StreamChannel
from argosy.infra.agent_port import Channel
from argosy.infra.ssh import Ran, Ssh, SshTarget

_STREAM_LIMIT_BYTES: Final = 2 << 20
#: What a job of this server, if it runs in one, would tell commands about itself.
_OWN_JOB: Final = ("SLURM_", "SLURMD_")
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CLUSTERS"})


class Runner(Protocol):
    """One place where Slurm's commands are."""

    async def run(self, script: str, *, data: bytes = b"", timeout_s: float = 30) -> Ran:
        """Run a bash script with `data` as its input. Raises a border error when the place cannot be
        reached, or
        the script takes too long: what it began may go on."""

    async def open(self, command: str) -> Channel:
        """Input and output of a command as a stream. Raises a border error."""

    async def close(self) -> None:
        """Give connections back."""


class LocalRunner:
    """This machine is a login node. What configures or unlocks the server is not in the environment of
    commands."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {
            name: value
            for name, value in environ.items()
            if not name.startswith("ARGOSY_") and (name in _KEPT or not name.startswith(_OWN_JOB))
        }

    async def run(self, script: str, *, data: bytes = b"", timeout_s: float = 30) -> Ran:
        none, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        process = await self._start(["/bin/bash", "-c", script], stdin=pipe if data else none)
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate(data or None)
        except TimeoutError:
            raise border.Transient(
                f"the commands of Slurm did not answer within {timeout_s:.0f} s", 5
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Ran(status=process.returncode or 0, out=out, err=err.decode("utf-8", "replace"))

    async def _start(
        self,
        command: list[str],
        *,
        stdin: int = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE,
    ) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                env=self._environ,
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                limit=_STREAM_LIMIT_BYTES,
                start_new_session=True,
            )
        except OSError as error:
            raise border.Transient(f"cannot start {command[0]}: {error.strerror or error}", 10) from None

    async def open(self, command: str) -> Channel:
        process = await self._start(["/bin/bash", "-c", command], stderr=asyncio.subprocess.DEVNULL)
        assert process.stdout is not None
        assert process.stdin is not None
        return StreamChannel(process.stdout, process.stdin)

    async def close(self) -> None:
        """Nothing is kept."""


class SshRunner:
    """A login node reached by ssh: one log-in, and a session for each script."""

    def __init__(self, ssh: Ssh, to: SshTarget) -> None:
        self._ssh = ssh
        self._to = to

    async def run(self, script: str, *, data: bytes = b"", timeout_s: float = 30) -> Ran:
        return await self._ssh.run(self._to, _in_bash(script), data=data, timeout_s=timeout_s)

    async def open(self, command: str) -> Channel:
        return await self._ssh.open_command(self._to, _in_bash(command))

    async def close(self) -> None:
        await self._ssh.drop(self._to)


def _in_bash(script: str) -> str:
    """People have other login shells, which may not know what bash does."""
    return f"exec bash -c {shlex.quote(script)}"


def target_of(login: str, *, key_file: str = "", config_file: str = "") -> SshTarget:
    """The login node that people write as `[user@]host[:port]`.

    >>> to = target_of("me@login.big:2222")
    >>> to.user, to.host, to.port
    ('me', 'login.big', 2222)
    """
    user, _, place = login.rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        host, port = place, "0"
    return SshTarget(host=host, user=user, port=int(port), key_file=key_file, config_file=config_file)
