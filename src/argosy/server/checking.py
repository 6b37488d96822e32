"""Checks of infrastructure: providers in use are asked, of the others their manifest says what is missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from argosy.api.prices import CheckReply, DiagnosticView
from argosy.infra.border import BorderError
from argosy.infra.provider import Diagnostic, Providers

if TYPE_CHECKING:
    from argosy.providers.enabling import Standing

_log: Final = logging.getLogger(__name__)
LIMIT_S: Final = 30.0  # a provider that takes longer has not answered


class Checks:
    """`standings`: of all providers that Argosy knows, whether this server uses them."""

    def __init__(self, providers: Providers, standings: Callable[[], Sequence[Standing]]) -> None:
        self._providers, self._standings = providers, standings

    async def reply(
        self, names: Collection[str] = (), *, every: bool = False, quick: bool = False
    ) -> CheckReply:
        """Findings, those of providers in use first, by name.

        Args:
            names: only these; (): all in use.
            every: also those that are not in use and lack more than a package.
            quick: ask nobody: those in use are named in `asking`.
        """
        used = [name for name in sorted(self._providers.all()) if not names or name in names]
        resting = self._resting(names, every=every)
        if quick:
            return CheckReply(findings=resting, asking=tuple(used))
        answers = await asyncio.gather(*map(self._ask, used))
        asked = [
            DiagnosticView(provider=one.provider, ok=one.ok, what=one.what, hint=one.hint)
            for answer in answers
            for one in answer
        ]
        return CheckReply(
            findings=tuple(sorted((*asked, *resting), key=lambda one: (not one.in_use, one.provider)))
        )

    def _resting(self, names: Collection[str], *, every: bool) -> tuple[DiagnosticView, ...]:
        """Those that are not in use: that somebody names, all when asked for, else those that are nearly
        there."""
        used = self._providers.all()
        return tuple(
            DiagnosticView(provider=one.name, ok=False, what=one.fact, hint=one.fix, in_use=False)
            for one in self._standings()
            if one.name not in used
            and one.fact
            and (one.name in names if names else every or bool(one.found))
        )

    async def _ask(self, name: str) -> list[Diagnostic]:
        """One that does not answer, or breaks, is a finding; it holds up no other."""
        try:
            async with asyncio.timeout(LIMIT_S):
                return list(await self._providers.get(name).check())
        except TimeoutError:
            what, hint = f"did not answer within {LIMIT_S:.0f} s", "the others are not held up by it"
        except (BorderError, OSError) as error:
            what, hint = str(error), ""
        except Exception as error:  # noqa: BLE001 — a driver's bug is its own
            _log.exception("%s failed to check itself", name)
            what, hint = f"its driver failed: {type(error).__name__}", "`argosy server status` names the log"
        return [Diagnostic(provider=name, ok=False, what=what, hint=hint)]
