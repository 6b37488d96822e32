"""The server of tests leaves no folder behind, however it ends."""

from __future__ import annotations

import gc
import warnings

import pytest

from argosy.model.errors import ArgosyError
from argosy.testing.idle_server import IdleServer


def test_it_takes_its_folder_with_it() -> None:
    with IdleServer() as running:
        assert (running.home / "argosy.db").exists()
    assert not running.home.exists()


def test_one_that_cannot_start_leaves_nothing() -> None:
    broken = IdleServer(listen="nowhere")
    with pytest.raises(ArgosyError), broken:
        pass
    assert not broken.home.exists()


def test_one_that_is_never_started_leaves_nothing() -> None:
    home = IdleServer().home
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert not home.exists()
