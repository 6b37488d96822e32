"""What older versions kept in files beside the database: taken into it once, the files are renamed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from argosy.model.budget import Budget, budget_id
from argosy.model.errors import ArgosyError
from argosy.store.accounts import Token
from argosy.store.store import Store

_log: Final = logging.getLogger(__name__)
T = TypeVar("T")


class _Budget(msgspec.Struct, frozen=True):
    """A budget as `budgets.json` had it, by project."""

    monthly_micro_usd: int
    alert_pct: int = 80
    hard_stop: bool = False
    told: tuple[str, ...] = ()


async def import_old_files(store: Store, state_dir: Path) -> None:
    """Budgets and tokens of `state_dir`, where the database has none of that name: safe to repeat.

    Raises ArgosyError `store-corrupt` for a damaged file: a hard stop must not be lost silently."""
    await _import_budgets(store, state_dir / "budgets.json")
    await import_tokens(store, state_dir)


async def import_tokens(store: Store, state_dir: Path) -> None:
    path = state_dir / "tokens.json"
    for token in _read(path, tuple[Token, ...]) or ():
        await store.put_token(token, replace=False)
    _put_away(path)


async def _import_budgets(store: Store, path: Path) -> None:
    known = (await store.snapshot()).budgets
    rows = [
        Budget(id=budget_id(project), project=project, **msgspec.structs.asdict(old))
        for project, old in (_read(path, dict[str, _Budget]) or {}).items()
        if budget_id(project) not in known
    ]
    for row in rows:
        if await store.load_budget(row.project) is None:
            await store.commit([row])
    _put_away(path)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ArgosyError(
            "store-corrupt",
            f"{path} of an older version cannot be read: {error}",
            hint="correct the file, or move it away to go on without what it says",
        ) from None


def _put_away(path: Path) -> None:
    try:
        path.rename(path.with_name(f"{path.name}.imported"))
        _log.info("%s is part of the database now", path)
    except FileNotFoundError:
        pass
