"""Tests against real accounts: only with credentials, and only as much as `--max-cost` says (dollars)."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--max-cost", type=float, default=0.0, help="dollars that one live test may spend")
    parser.addoption("--live-type", default="", help="type of machine, instead of the cheapest")
