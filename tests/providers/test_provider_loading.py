"""Discovery: by folder, by name, lazily; devices are allotted as promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.infra.allotment import allot_devices, free_milli
from argosy.infra.provider import Capabilities, Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.providers import find_providers, is_launchable, load_providers
from argosy.providers.local.provider import LocalProvider, parse_price


def test_local_is_enabled_by_default_and_made_once(tmp_path: Path) -> None:
    providers = load_providers(None, tmp_path, SystemClock(), SystemIds(), {"ARGOSY_LOCAL_PRICE": "1.5"})
    local = providers.get("local")
    assert isinstance(local, LocalProvider)
    assert providers.all()["local"] is local
    assert local.manifest.shared_dir.startswith(str(tmp_path))


def test_unknown_names_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="no provider `nowhere`") as caught:
        load_providers(["nowhere"], tmp_path, SystemClock(), SystemIds(), {})
    assert "local" in caught.value.hint
    providers = load_providers(["local"], tmp_path, SystemClock(), SystemIds(), {})
    with pytest.raises(ArgosyError):
        providers.get("other")


def test_every_installed_provider_has_a_manifest_and_a_maker() -> None:
    for name, module in find_providers().items():
        assert module.MANIFEST.name == name
        if is_launchable(module):
            assert callable(module.create)
        else:  # prices only
            assert module.MANIFEST.capabilities == Capabilities()
            assert not module.MANIFEST.enabled_by_default


def test_what_has_a_name_only_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArgosyError, match="Argosy cannot run on seeweb yet: it has no driver") as caught:
        load_providers(["seeweb"], tmp_path, SystemClock(), SystemIds(), {})
    assert caught.value.hint is not None
    assert {"aws", "local", "slurm"} <= set(caught.value.hint.removeprefix("it runs on: ").split(", "))


def test_finding_providers_imports_no_drivers() -> None:
    code = (
        "import sys; from argosy.providers import find_providers; find_providers();"
        "bad = [m for m in sys.modules if m == 'asyncio' or m.endswith('.local.provider')];"
        "sys.exit(repr([m for m in bad if m != 'asyncio']) if bad != ['asyncio'] and bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_settings_do_not_show_the_environment(tmp_path: Path) -> None:
    setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ={"CLOUD_KEY": "hunter2"})
    assert "hunter2" not in repr(setting)


@pytest.mark.parametrize(
    ("text", "micro"), [("", 0), ("1.25", 1_250_000), ("-3", 0), ("free", 0), ("inf", 0)]
)
def test_prices(text: str, micro: int) -> None:
    assert parse_price(text) == micro


@given(
    taken=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([250, 500, 1000])), max_size=6),
    milli=st.sampled_from([0, 250, 500, 1000, 1500, 2000]),
    count=st.integers(1, 4),
)
def test_devices_are_never_given_twice(taken: list[tuple[int, int]], milli: int, count: int) -> None:
    left = free_milli(range(4), taken)
    if any(value < 0 for value in left.values()):
        return
    nodes = allot_devices(left, milli, count)
    if nodes is None:
        assert milli * count > 0
        return
    assert [sum(share for _, share in node) for node in nodes] == [milli] * count
    for index, free in left.items():
        given_away = [share for node in nodes for device, share in node if device == index]
        assert sum(given_away) <= free
        assert given_away.count(1000) <= 1


def test_whole_devices_stay_whole() -> None:
    assert allot_devices({0: 1000, 1: 750}, 250, 1) == [((1, 250),)]
    assert allot_devices({0: 1000, 1: 1000}, 1500, 1) == [((0, 1000), (1, 500))]
    assert allot_devices({0: 500, 1: 500}, 1000, 1) is None
