"""Cloudflare R2: r2://BUCKET/KEY."""

from __future__ import annotations

from typing import Final

from argosy.infra.buckets import Encryption, Opened, StoreSettings
from argosy.storage.s3_bucket import BARE_TRAITS
from argosy.storage.s3_compatible import Preset, open_s3

_PRESET: Final = Preset(
    scheme="r2",
    title="Cloudflare R2",
    endpoint="https://{account}.r2.cloudflarestorage.com",
    region="auto",
    profile="r2",
    files=(".cloudflare/r2.credentials", ".aws/credentials"),
    variables="R2",
    account_variables=("R2_ACCOUNT_ID", "CLOUDFLARE_ACCOUNT_ID"),
    account_file=".cloudflare/accountid",
    sign_in="make an R2 API token and write its keys to ~/.cloudflare/r2.credentials under [r2]",
    traits=BARE_TRAITS,
)


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    return open_s3(url, settings, encryption, _PRESET)
