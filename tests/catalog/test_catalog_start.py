"""Opening the catalog is cheap: what is not needed for a price is not imported."""

from __future__ import annotations

import subprocess
import sys

LATER = [
    "asyncio",
    "csv",
    "difflib",
    "email",
    "http.client",
    "sqlite3",
    "ssl",
    "tomllib",
    "urllib.request",
    "yaml",
]


def test_a_price_needs_few_modules() -> None:
    script = (
        "import sys\n"
        "from argosy.catalog import Catalog\n"
        "from argosy.model.resources import Accelerator, Infra, Resources\n"
        "from argosy.planning.market import rank\n"
        "market = Catalog.load().market\n"
        "wish = Resources(accelerator=Accelerator(model='L4', milli=1000), infra=Infra(provider='gcp'))\n"
        "assert rank([wish], 1, market).plan.choices\n"
        "assert list(market._blocks) == ['gcp'], 'only what is asked for is unpacked'\n"
        f"print(*(name for name in {LATER!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
