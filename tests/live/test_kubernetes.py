"""One pod in the current context of the kubeconfig: `pytest tests/live/test_kubernetes.py --max-cost 0`."""

from __future__ import annotations

from pathlib import Path

import pytest

from live.cloud_life import live_once


def test_one_pod(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    live_once("kubernetes", pytestconfig, tmp_path)
