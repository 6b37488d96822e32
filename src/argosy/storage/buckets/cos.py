"""IBM's object storage: cos://REGION/BUCKET/KEY."""

from __future__ import annotations

from typing import Final

from argosy.infra.buckets import Encryption, Opened, StoreSettings
from argosy.storage.s3_bucket import BARE_TRAITS
from argosy.storage.s3_compatible import Preset, open_s3

_PRESET: Final = Preset(
    scheme="cos",
    title="IBM Cloud Object Storage",
    endpoint="https://s3.{region}.cloud-object-storage.appdomain.cloud",
    region="us-south",
    region_in_url=True,
    profile="cos",
    variables="IBM_COS",
    sign_in="make service credentials with HMAC keys and write them to ~/.aws/credentials under [cos]",
    traits=BARE_TRAITS,
)


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    return open_s3(url, settings, encryption, _PRESET)
