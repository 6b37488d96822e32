"""Azure Blob Storage against Azurite, Microsoft's own emulator: `npm install azurite`, and ARGOSY_AZURITE
names its folder `node_modules`. CI has no npm packages: this runs with `make nightly`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.infra.buckets import Bucket, StoreSettings
from argosy.infra.system import SystemClock, SystemIds
from argosy.storage.buckets import open_bucket, sections_of
from argosy.testing.conformance.bucket import CASES, Case, NotApplicable, case_name
from argosy.testing.ports import free_port

pytestmark = pytest.mark.nightly
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # published


class Azurite:
    awkward_keys = False

    def __init__(self, endpoint: str, root: Path) -> None:
        self._settings = StoreSettings(
            environ={"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY},
            home=root,
            clock=SystemClock(),
            sections=sections_of(f"azblob: {{endpoint: '{endpoint}'}}"),
        )

    def bucket(self) -> Bucket:
        return open_bucket(f"azblob://{SystemIds().new('bkt')}/", self._settings).bucket


@pytest.fixture(scope="module")
def azurite() -> Iterator[str]:
    program = Path(os.environ.get("ARGOSY_AZURITE", "node_modules")) / "azurite/dist/src/blob/main.js"
    if not program.exists():
        pytest.skip(
            "Azurite is not installed: `npm install azurite`, and name node_modules in ARGOSY_AZURITE"
        )
    port = free_port()
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(
        ["node", str(program), "--blobPort", str(port), *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "successfully listens" in line:
                break
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_azure_blob_storage(case: Case, azurite: str, tmp_path: Path) -> None:
    try:
        case(Azurite(azurite, tmp_path))
    except NotApplicable as reason:
        pytest.skip(str(reason))
