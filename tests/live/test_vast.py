"""One container of Vast.ai, when there is a key: `pytest tests/live/test_vast.py --max-cost 1`."""

from __future__ import annotations

from pathlib import Path

import pytest

from live.cloud_life import live_once


def test_one_machine(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    live_once("vast", pytestconfig, tmp_path)
