"""Every engine passes the suite of `argosy.testing.conformance.store`."""

from __future__ import annotations

import asyncio

import pytest

from argosy.testing.conformance.store import CASES, Case, NotApplicable, Subject, case_name


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_store_conformance(subject: Subject, case: Case) -> None:
    try:
        asyncio.run(case(subject))
    except NotApplicable as reason:
        pytest.skip(str(reason))
