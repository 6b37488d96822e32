"""Which drivers are in use: by what is found of their credentials, or by name; and what others lack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from argosy.infra.provider import Capabilities, Manifest
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.providers import load_providers, standings, what_is_missing
from argosy.providers.enabling import missing_packages, standing_of, where_found

CLOUD = Manifest(
    name="cloud",
    title="a cloud",
    capabilities=Capabilities(),
    credentials=("CLOUD_PROFILE", "CLOUD_ID and CLOUD_KEY", "~/.cloud/credentials", "program cloud-agent"),
    sign_in="cloud configure",
)
HOW = (
    "`cloud configure`, or give the server CLOUD_PROFILE; or CLOUD_ID and CLOUD_KEY; "
    "or ~/.cloud/credentials; or program cloud-agent; "
    "then `argosy server stop` (the next command starts it again)"
)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, ""),
        ({"CLOUD_PROFILE": "work"}, "CLOUD_PROFILE"),
        ({"CLOUD_PROFILE": ""}, ""),
        ({"CLOUD_ID": "x"}, ""),
        ({"CLOUD_ID": "x", "CLOUD_KEY": "y"}, "CLOUD_ID and CLOUD_KEY"),
    ],
)
def test_variables_are_found(environ: dict[str, str], found: str) -> None:
    assert where_found(CLOUD.credentials, {"HOME": "/nonexistent", "PATH": ""} | environ) == found


def test_files_and_programs_are_found(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
    (tmp_path / ".cloud").mkdir()
    (tmp_path / ".cloud" / "credentials").write_text("")
    assert where_found(CLOUD.credentials, environ) == ""  # an empty file has none
    (tmp_path / ".cloud" / "credentials").write_text("[default]")
    assert where_found(CLOUD.credentials, environ) == "~/.cloud/credentials"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cloud-agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert where_found(CLOUD.credentials[3:], environ) == "program cloud-agent"


def test_what_lacks_credentials_says_how_to_get_them() -> None:
    standing = standing_of(CLOUD, {"HOME": "/nonexistent", "PATH": ""})
    assert not standing.in_use and standing.fix == HOW
    assert standing.fact == "cloud is not in use on this server: no credentials were found"


def test_credentials_are_enough_to_be_in_use() -> None:
    standing = standing_of(CLOUD, {"CLOUD_PROFILE": "work"})
    assert standing.in_use and standing.found == "CLOUD_PROFILE" and not standing.fact


def test_a_name_in_the_setting_counts_more_than_what_is_found() -> None:
    named = {"ARGOSY_INFRA": "Cloud, local", "HOME": "/nonexistent", "PATH": ""}
    assert standing_of(CLOUD, named).in_use
    other = standing_of(CLOUD, {"ARGOSY_INFRA": "local", "CLOUD_PROFILE": "work"})
    assert not other.in_use and other.fact.endswith("ARGOSY_INFRA is `local`")
    assert other.fix.startswith("add `cloud` to ARGOSY_INFRA")


def test_an_extra_that_is_not_installed_is_one_pip_install(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["msgspec>=0.18", "no-such-sdk>=1; extra == 'cloud'", 'msgspec>=0.18; extra == "cloud"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    assert missing_packages("cloud") == ("no-such-sdk",) and missing_packages("") == ()
    import msgspec

    standing = standing_of(msgspec.structs.replace(CLOUD, extra="cloud"), {"CLOUD_PROFILE": "work"})
    assert not standing.in_use and standing.found
    assert standing.fact == "cloud is not in use on this server: no-such-sdk is not installed"
    assert standing.fix == (
        "`pip install argosy[cloud]`, then `argosy server stop` (the next command starts it again)"
    )


def test_every_extra_of_a_manifest_is_one_of_the_package() -> None:
    import importlib.metadata

    known = importlib.metadata.metadata("argosy").get_all("Provides-Extra") or []
    from argosy.providers import find_manifests

    assert {each.extra for each in find_manifests() if each.extra} <= set(known)


def test_a_server_uses_what_is_found_and_what_is_named(tmp_path: Path) -> None:
    nothing = {"HOME": str(tmp_path), "PATH": ""}
    assert "local" in load_providers(None, tmp_path, SystemClock(), SystemIds(), nothing).all()
    with pytest.raises(ArgosyError, match="there is no provider `nowhere`"):
        load_providers(None, tmp_path, SystemClock(), SystemIds(), nothing | {"ARGOSY_INFRA": "nowhere"})
    only = load_providers(None, tmp_path, SystemClock(), SystemIds(), nothing | {"ARGOSY_INFRA": "local"})
    assert list(only.all()) == ["local"]


def test_of_every_known_place_it_is_said_why_it_is_not_in_use() -> None:
    nothing = {"HOME": "/nonexistent", "PATH": ""}
    for each in standings(nothing):
        assert each.in_use or each.fact.startswith((each.name, "Argosy cannot run on"))
    assert what_is_missing("hyperbolic", nothing) == (
        "Argosy cannot run on hyperbolic yet: it has no driver", ""
    )  # fmt: skip
    assert what_is_missing("mars", nothing) is None


def test_finding_out_imports_no_sdk() -> None:
    code = (
        "import sys, os; os.environ['AWS_PROFILE'] = 'x'; from argosy.providers import standings;"
        "standings(os.environ); sys.exit(repr({'boto3', 'botocore', 'asyncssh'} & sys.modules.keys() or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "''"
