"""Start-up time is a feature, and imports go down: measured by what a fresh interpreter has loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

#: What the command line and the SDK must not load just by being imported.
HEAVY = (
    "sqlalchemy",
    "alembic",
    "litestar",
    "uvicorn",
    "uvloop",
    "rich",
    "asyncio",
    "yaml",
    "numpy",
    "httpx",
    "psycopg",
)
SERVER_SIDE = tuple(
    f"argosy.{name}"
    for name in (
        "server",
        "controllers",
        "providers",
        "storage",
        "store",
        "planning",
        "catalog",
        "infra",
        "agent",
        "testing",
    )
)


def _loaded(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import argosy", "import argosy.model.rows", "import argosy.client", "import argosy.cli.main"],
)
def test_importing_a_face_is_cheap(statement: str) -> None:
    loaded = _loaded(statement)
    assert sorted(loaded & set(HEAVY)) == []
    assert sorted(name for name in loaded if name.startswith(SERVER_SIDE)) == []


def test_the_agent_is_standard_library_only() -> None:
    """Imported with every site directory switched off, so nothing but the standard library can be found."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPO / 'src')!r})\n"
        "import pkgutil, importlib, types\n"
        "alone = types.ModuleType('argosy'); alone.__path__ = [p + '/argosy' for p in sys.path[:1]]; "
        "alone.__version__ = '0'; sys.modules['argosy'] = alone\n"
        "import argosy.agent\n"
        "for module in pkgutil.walk_packages(argosy.agent.__path__, 'argosy.agent.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "print(sorted(name for name in sys.modules if name.startswith('argosy.') and not "
        "name.startswith('argosy.agent')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-s", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_import_contracts() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_without_accounts_loads_nothing_of_them() -> None:
    """Only the decision is there until somebody comes over TCP, signs in, or names a person or a secret."""
    loaded = _loaded("import argosy.server.run, argosy.server.features")
    found = {name for name in loaded if name.startswith("argosy.identity")}
    assert found == {"argosy.identity", "argosy.identity.deciding"}
    features = {f"argosy.server.features.{name}" for name in ("people", "signing_in", "audit", "secrets")}
    calls = {f"argosy.api.{name}" for name in ("people", "audit", "secrets")}
    assert not loaded & (features | calls | {"argosy.facades.scim", "argosy.server.provisioning"})
