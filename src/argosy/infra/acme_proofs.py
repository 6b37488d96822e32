"""Challenges of a certificate authority, answered by a record in the DNS. Those by an answer on port 80 are
made by who answers there: `server.host_proofs`, `server.domains`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from argosy.infra.acme import Proof
from argosy.infra.border import RequestRefused, Transient

_LATE_S: Final = 300.0  # a command may wait until the record is seen everywhere


class DnsProofs:
    """Proofs by TXT records, which a command of the site makes: `COMMAND add|remove NAME TEXT`. It ends when
    the record can be seen. Only so does an authority give a certificate for `*.` names."""

    kind = "dns-01"

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def show(self, proof: Proof) -> None:
        await self._run("add", proof)

    async def hide(self, proof: Proof) -> None:
        await self._run("remove", proof)

    async def _run(self, verb: str, proof: Proof) -> None:
        words = (*self._command, verb, f"_acme-challenge.{proof.host}", proof.text)
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
            )
        except OSError as error:
            raise RequestRefused("proof", f"cannot run {words[0]}: {error.strerror}") from None
        try:
            async with asyncio.timeout(_LATE_S):
                said = (await process.communicate())[1]
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Transient(f"{words[0]} did not end within {_LATE_S:.0f} s", 600) from None
        if process.returncode:
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
            raise RequestRefused("proof", f"{words[0]} ended with {process.returncode}: {last}")
