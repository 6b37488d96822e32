"""Nebius's object storage: nebius://BUCKET/KEY."""

from __future__ import annotations

from typing import Final

from argosy.infra.buckets import Encryption, Opened, StoreSettings
from argosy.storage.s3_bucket import BARE_TRAITS
from argosy.storage.s3_compatible import Preset, open_s3

_PRESET: Final = Preset(
    scheme="nebius",
    title="Nebius's object storage",
    endpoint="https://storage.{region}.nebius.cloud",
    region="eu-north1",
    profile="nebius",
    variables="NEBIUS",
    region_variables=("NEBIUS_REGION",),
    sign_in="make an access key of a service account (`nebius iam access-key create`) and write it to "
    "~/.aws/credentials under [nebius]",
    traits=BARE_TRAITS,
)


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    return open_s3(url, settings, encryption, _PRESET)
