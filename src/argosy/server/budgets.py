"""Budgets of projects: a file of the server, read when it changes and written whole or not at all.

A budget is for each month (UTC). When a share of it is spent, an event says so, once a month; when it is
spent and the budget is a hard stop, nothing that costs money is launched any more. What runs goes on:
nobody's work is ended by an accountant.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.rows import Event
from argosy.model.units import render_price


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    monthly_micro_usd: int
    alert_pct: int = 80
    hard_stop: bool = False
    told: tuple[str, ...] = ()  # `2026-01 alert`, `2026-01 spent`: what was said, of the last month only


class Budgets:
    """All budgets by project. Cheap to ask: a file that is not there is one system call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._kept: dict[str, Budget] = {}

    def all(self) -> Mapping[str, Budget]:
        """Raises `store-corrupt` when the file is damaged: a hard stop must not be lost silently."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._kept = None, {}
            return {}
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            try:
                self._kept = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Budget])
            except (OSError, msgspec.DecodeError) as error:
                raise ArgosyError(
                    "store-corrupt",
                    f"the budgets in {self._path} cannot be read: {error}",
                    hint="correct the file; without it there are no budgets",
                ) from None
            self._stamp = stamp
        return self._kept

    def set(self, project: str, budget: Budget | None) -> None:
        """None: the project has no budget any more. Raises `usage` for amounts that make no sense."""
        if budget is not None:
            if budget.monthly_micro_usd < 0:
                raise ArgosyError("usage", "a budget is not below $0")
            if not 1 <= budget.alert_pct <= 100:
                raise ArgosyError("usage", f"the alert is at 1 to 100 percent, not {budget.alert_pct}")
        changed = dict(self.all())
        changed.pop(project, None)
        if budget is not None:
            changed[project] = budget
        self._write(changed)

    def _write(self, budgets: Mapping[str, Budget]) -> None:
        draft = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(dict(sorted(budgets.items()))), indent=2))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise ArgosyError(
                "disk-full", f"the budgets cannot be written to {self._path}: {error.strerror}"
            ) from None

    def refuse(self, project: str, spent_micro_usd: int, month: str, next_month: str) -> ArgosyError | None:
        """Why nothing that costs money may be launched; None when it may."""
        budget = self.all().get(project)
        if budget is None or not budget.hard_stop or spent_micro_usd < budget.monthly_micro_usd:
            return None
        return ArgosyError(
            "over-budget",
            f"project `{project}` has spent {render_price(spent_micro_usd)} of its "
            f"{render_price(budget.monthly_micro_usd)} for {month}: nothing that costs money is launched",
            hint=f"raise it with `argosy budget set {project} USD`, or wait until {next_month}-01 (UTC)",
        )

    def news(
        self, spent: Mapping[str, int], live: Mapping[str, Sequence[str]], month: str, now_ms: int
    ) -> tuple[Event, ...]:
        """Events that were not told this month; they count as told from now on.

        Args:
            spent: micro-USD of this month by project.
            live: ids of running clusters and jobs by project: each gets the event, and the project itself.
        """
        events: list[Event] = []
        changed = dict(self.all())
        for project, budget in self.all().items():
            used = spent.get(project, 0)
            level = _level(budget, used)
            mark = f"{month} {level}"
            if not level or mark in budget.told or f"{month} spent" in budget.told:
                continue
            now_told = (*(each for each in budget.told if each.startswith(month)), mark)
            changed[project] = msgspec.structs.replace(budget, told=now_told)
            text = (
                f"project `{project}` has spent {render_price(used)} of its "
                f"{render_price(budget.monthly_micro_usd)} for {month}"
            )
            if level == "spent" and budget.hard_stop:
                text += "; nothing that costs money is launched, what runs goes on"
            code = "budget-spent" if level == "spent" else "budget-alert"
            events += [
                Event(at_ms=now_ms, subject=subject, code=code, text=text)
                for subject in (project, *live.get(project, ()))
            ]
        if events:
            self._write(changed)
        return tuple(events)


def _level(budget: Budget, used_micro_usd: int) -> str:
    if used_micro_usd >= budget.monthly_micro_usd:
        return "spent"
    return "alert" if used_micro_usd * 100 >= budget.monthly_micro_usd * budget.alert_pct else ""
