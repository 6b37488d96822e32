"""Amazon S3: s3://BUCKET/KEY."""

from __future__ import annotations

from typing import Final

from argosy.infra.buckets import Encryption, Opened, StoreSettings
from argosy.storage.s3_compatible import Preset, open_s3

_PRESET: Final = Preset(
    scheme="s3",
    title="Amazon S3",
    endpoint="https://s3.{region}.amazonaws.com",
    region_variables=("AWS_REGION", "AWS_DEFAULT_REGION"),
    endpoint_variables=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    sts="https://sts.{region}.amazonaws.com",
    sts_variables=("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"),
    sign_in="sign in: `aws configure`, `aws sso login`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
)


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    return open_s3(url, settings, encryption, _PRESET)
