"""Starting the real agent on this machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from argosy.infra.boot import agent_command, probe_command
from argosy.model.facts import NodeFacts
from argosy.providers.local.processes import AGENT_MARK, Process, spawn

_PROBE_LIMIT_S = 30.0
#: What describes this machine, and how its devices are shared: meant for agents.
_FOR_AGENTS = frozenset(
    {
        "ARGOSY_NVML_LIBRARY",
        "ARGOSY_NODE_FILE",
        "ARGOSY_NODE_LABELS",
        "ARGOSY_NODE_TAINTS",
        "ARGOSY_NODE_DOMAINS",
        "ARGOSY_MIG",
        "ARGOSY_SHARES_DIR",
        "ARGOSY_UMASK",
    }
)


class ZipappAgents:
    """`provider.Agents` with the zipapp that nodes everywhere get, run by the Python that runs us."""

    def __init__(self, zipapp: Path, environ: Mapping[str, str]) -> None:
        self._zipapp = zipapp
        # What configures or unlocks the server is not for what users run on its machine.
        self._environ = {
            key: value
            for key, value in environ.items()
            if not key.startswith("ARGOSY_") or key in _FOR_AGENTS
        }

    def start(self, home: Path, socket: Path, devices: Sequence[int], name: str) -> Process:
        command = agent_command(self._zipapp, home, socket, devices=devices, name=name, python=sys.executable)
        return spawn(command, {**self._environ_of(home), AGENT_MARK: str(home)}, home / "agent.log")

    def _environ_of(self, home: Path) -> dict[str, str]:
        return {**self._environ, "ARGOSY_PLACED_DIR": str(_placed_dir(home))}

    def release(self, home: Path) -> None:
        if not _placed_dir(home).exists():
            return
        command = [sys.executable, "-I", "-S", str(self._zipapp), "release", "--root", str(home)]
        done = subprocess.run(
            command, env=self._environ_of(home), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(done.stderr.strip() or "its files outside of its folder cannot be removed")

    async def probe(self) -> NodeFacts:
        command = probe_command(self._zipapp, python=sys.executable)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_PROBE_LIMIT_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise OSError(f"the probe did not answer within {_PROBE_LIMIT_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            return msgspec.json.decode(out, type=NodeFacts)
        except msgspec.MsgspecError:
            said = err.decode("utf-8", "replace").strip().splitlines()
            raise OSError(f"the probe failed: {said[-1][:300] if said else 'it said nothing'}") from None


def _placed_dir(home: Path) -> Path:
    """Where the nodes of this machine note what they put outside of their folders."""
    return home.parent.parent / ".placed"
