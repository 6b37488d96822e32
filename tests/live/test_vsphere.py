"""One machine of a vCenter, with its account: `pytest tests/live/test_vsphere.py --max-cost 1`."""

from __future__ import annotations

from pathlib import Path

import pytest

from live.cloud_life import live_once


def test_one_machine(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    live_once("vsphere", pytestconfig, tmp_path)
