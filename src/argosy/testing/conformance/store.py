"""What the store must do on every engine, as cases that run against any of them.

    @pytest.mark.parametrize("case", CASES, ids=case_name)
    def test_conformance(case): asyncio.run(case(my_subject))

A *subject* is a database, empty at first, that stores are opened on. A case that needs a knob which the
subject does not have raises `NotApplicable`. A case is every public coroutine function of `store_rows`,
`store_life` and `store_writers` that takes a subject and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Final

from argosy.testing.conformance import store_life, store_rows, store_writers
from argosy.testing.conformance.provider import NotApplicable
from argosy.testing.conformance.store_subject import Case, Subject

__all__ = ["CASES", "Case", "NotApplicable", "Subject", "case_name"]


def _cases_in(module: ModuleType) -> Iterator[Case]:
    for name, member in vars(module).items():
        ours = inspect.iscoroutinefunction(member) and member.__module__ == module.__name__
        if ours and not name.startswith("_") and list(inspect.signature(member).parameters) == ["subject"]:
            yield member


CASES: Final[tuple[Case, ...]] = tuple(
    case for module in (store_rows, store_life, store_writers) for case in _cases_in(module)
)


def case_name(case: Case) -> str:
    return getattr(case, "__name__", str(case))
