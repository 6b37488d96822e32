"""Any store that speaks S3, under the scheme that a section of `buckets.yaml` names: SCHEME://BUCKET/KEY."""

from __future__ import annotations

from argosy.infra.buckets import Encryption, Opened, StoreSettings, UrlUnknown
from argosy.storage.s3_compatible import Preset, Settings, open_s3


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    scheme = url.partition("://")[0].lower()
    own = settings.section(scheme, Settings)
    if not own.endpoint:
        raise UrlUnknown(
            f"`{scheme}` in buckets.yaml has no endpoint", f"write `{scheme}: {{endpoint: https://HOST}}`"
        )
    name = own.variables or scheme.upper().replace("-", "_")
    preset = Preset(
        scheme=scheme,
        title=f"the store {scheme}",
        endpoint=own.endpoint,
        profile=scheme,
        variables=name,
        sign_in=f"set {name}_ACCESS_KEY_ID and {name}_SECRET_ACCESS_KEY for the server, or write them to "
        f"~/.aws/credentials under [{own.profile or scheme}]",
    )
    return open_s3(url, settings, encryption, preset)
