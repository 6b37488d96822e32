"""Oracle's object storage through its S3 interface: oci://BUCKET/KEY."""

from __future__ import annotations

from typing import Final

from argosy.infra.buckets import Encryption, Opened, StoreSettings
from argosy.storage.s3_bucket import BARE_TRAITS
from argosy.storage.s3_compatible import Preset, open_s3

_PRESET: Final = Preset(
    scheme="oci",
    title="Oracle Cloud's object storage",
    endpoint="https://{account}.compat.objectstorage.{region}.oraclecloud.com",
    region="us-ashburn-1",
    profile="oci",
    variables="OCI_S3",
    region_variables=("OCI_REGION", "OCI_CLI_REGION"),
    account_variables=("OCI_NAMESPACE",),
    sign_in="make a customer secret key (`oci iam customer-secret-key create`) and write it to "
    "~/.aws/credentials under [oci]",
    traits=BARE_TRAITS,
)


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    return open_s3(url, settings, encryption, _PRESET)
