"""One machine of Azure, when somebody is signed in: `pytest tests/live/test_azure.py --max-cost 1`."""

from __future__ import annotations

from pathlib import Path

import pytest

from live.cloud_life import live_once


def test_one_machine(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    live_once("azure", pytestconfig, tmp_path)
