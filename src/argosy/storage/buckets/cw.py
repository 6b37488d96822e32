"""CoreWeave's object storage: cw://BUCKET/KEY."""

from __future__ import annotations

from typing import Final

from argosy.infra.buckets import Encryption, Opened, StoreSettings
from argosy.storage.s3_bucket import BARE_TRAITS
from argosy.storage.s3_compatible import Preset, open_s3

_PRESET: Final = Preset(
    scheme="cw",
    title="CoreWeave's object storage",
    endpoint="https://cwobject.com",
    region="US-EAST-04A",
    profile="cw",
    files=(".coreweave/cw.credentials", ".aws/credentials"),
    variables="CW",
    region_variables=("CW_REGION",),
    virtual_host=True,
    sign_in="make an access key in CoreWeave's console and write it to ~/.coreweave/cw.credentials "
    "under [cw]",
    traits=BARE_TRAITS,
)


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    return open_s3(url, settings, encryption, _PRESET)
