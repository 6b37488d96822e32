"""What stores that speak S3 have in common: where their credentials are, and what `buckets.yaml` may say.

A store is a `Preset`; the user's own endpoints are presets that `buckets.yaml` writes.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from argosy.infra.buckets import (
    CredentialsMissing,
    Encryption,
    NotPossible,
    Opened,
    StoreSettings,
    Traits,
    UrlUnknown,
)
from argosy.storage.s3_bucket import S3_TRAITS, S3Bucket
from argosy.storage.s3_encryption import customer_key
from argosy.storage.s3_signing import Keys
from argosy.storage.s3_tokens import TokenService
from argosy.storage.s3_wire import Site, Wire
from argosy.storage.tls import check_tls

_FRESH_S: Final = 60.0  # files of credentials are read again after this
_ENDS_S: Final = 120.0  # keys that end within this are not begun with


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One store that speaks S3. In `endpoint`, `{region}` and `{account}` stand for what the user's settings
    say. `files`: below the user's home, as AWS's tools write them, with `profile` in brackets."""

    scheme: str
    title: str
    endpoint: str
    sign_in: str
    region: str = "us-east-1"
    profile: str = "default"
    files: tuple[str, ...] = (".aws/credentials",)
    variables: str = "AWS"  # before _ACCESS_KEY_ID, _SECRET_ACCESS_KEY, _SESSION_TOKEN
    region_variables: tuple[str, ...] = ()
    endpoint_variables: tuple[str, ...] = ()
    sts: str = ""  # its STS, where it has one
    sts_variables: tuple[str, ...] = ()
    account_variables: tuple[str, ...] = ()
    account_file: str = ""  # below the home
    virtual_host: bool = False
    region_in_url: bool = False  # SCHEME://REGION/BUCKET/KEY
    may_be_anonymous: bool = False
    traits: Traits = S3_TRAITS


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of `buckets.yaml`. Secrets stand in the files and variables that it names, not here."""

    endpoint: str = ""
    region: str = ""
    account: str = ""
    profile: str = ""
    credentials_file: str = ""
    variables: str = ""
    virtual_host: bool | None = None
    ca_file: str = ""
    anonymous: bool = False
    sts: str = ""  # an STS that gives keys for one bucket
    tls: bool = True  # false: also an http:// endpoint of another machine will do
    role: str = ""  # whose keys mounts get, narrowed to what is mounted


def open_s3(url: str, settings: StoreSettings, encryption: Encryption, preset: Preset) -> Opened:
    """Raises `UrlUnknown`, `CredentialsMissing`, `NotPossible`."""
    own = settings.section(preset.scheme, Settings)
    region, bucket, key = _split(url, preset)
    environ = settings.environ
    region = region or own.region or _first(environ, preset.region_variables) or preset.region
    endpoint = own.endpoint or _first(environ, preset.endpoint_variables) or preset.endpoint
    if "{account}" in endpoint:
        endpoint = endpoint.replace("{account}", _account(own, settings, preset))
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise UrlUnknown(
            f"the endpoint of {preset.scheme}:// is `{endpoint}`, which is no address",
            f"write `{preset.scheme}: {{endpoint: https://HOST}}` in buckets.yaml",
        )
    check_tls(preset.scheme, endpoint, tls=own.tls)
    if encryption.type not in ("", *preset.traits.encryption):
        raise NotPossible(
            f"{preset.title} does not encrypt with `{encryption.type}`",
            f"it can: {', '.join(preset.traits.encryption) or 'nothing that is asked for'}",
        )
    bucket_url = f"{preset.scheme}://{region + '/' if preset.region_in_url else ''}{{bucket}}"
    site = Site(
        title=preset.title,
        endpoint=endpoint.rstrip("/"),
        region=region,
        bucket_url=bucket_url,
        sign_in=preset.sign_in,
        virtual_host=preset.virtual_host if own.virtual_host is None else own.virtual_host,
        ca_file=own.ca_file or environ.get("AWS_CA_BUNDLE", ""),
    )
    ring = KeyRing(preset, own, settings)
    wire = Wire(site, bucket, ring.keys, lambda: settings.clock.now_ms() / 1000)
    tokens = _tokens(own, settings, preset, region, is_usual=endpoint == preset.endpoint)
    secret = customer_key(settings, encryption)
    return Opened(S3Bucket(wire, encryption, preset.traits, tokens, secret), key)


def _tokens(
    own: Settings, settings: StoreSettings, preset: Preset, region: str, *, is_usual: bool
) -> TokenService | None:
    """Who gives temporary keys. A store at another address than its usual one has the service that is named
    for it, or none."""
    named = own.sts or _first(settings.environ, preset.sts_variables)
    endpoint = named or (preset.sts if is_usual else "")
    if not endpoint:
        return None
    return TokenService(
        endpoint=endpoint.replace("{region}", region).rstrip("/"),
        region=region,
        title=preset.title,
        role=own.role,
        is_wanted=bool(own.role or own.sts),
        now_s=lambda: settings.clock.now_ms() / 1000,
    )


class KeyRing:
    """Where the keys of one store are: variables, then files, then AWS's own library where it is installed.
    They are looked for again when they may have changed."""

    def __init__(self, preset: Preset, own: Settings, settings: StoreSettings) -> None:
        self._preset, self._own, self._settings = preset, own, settings
        self._found: Keys | None = None
        self._until_s = -1.0

    def keys(self) -> Keys | None:
        """None: anonymous. Raises `CredentialsMissing`."""
        if self._own.anonymous:
            return None
        now_s = self._settings.clock.now_ms() / 1000
        if now_s >= self._until_s:
            self._found = self._look()
            self._until_s = now_s + _FRESH_S
            if self._found is not None and self._found.expires_s:
                self._until_s = max(now_s + 1, min(self._until_s, self._found.expires_s - _ENDS_S))
        if self._found is None and not self._preset.may_be_anonymous:
            raise CredentialsMissing(
                f"there are no credentials for {self._preset.scheme}:// ({self._where()})",
                self._preset.sign_in,
            )
        return self._found

    def forget(self) -> None:
        self._until_s = -1.0

    def _where(self) -> str:
        prefix = self._own.variables or self._preset.variables
        files = ", ".join(f"~/{file} [{self._profile()}]" for file in self._files())
        return f"looked for {prefix}_ACCESS_KEY_ID and {files}"

    def _files(self) -> tuple[str, ...]:
        return (self._own.credentials_file,) if self._own.credentials_file else self._preset.files

    def _profile(self) -> str:
        usual = self._preset.profile
        if usual == "default":
            usual = self._settings.environ.get("AWS_PROFILE", "") or usual
        return self._own.profile or usual

    def _look(self) -> Keys | None:
        environ, prefix = self._settings.environ, self._own.variables or self._preset.variables
        id, secret = (
            environ.get(f"{prefix}_ACCESS_KEY_ID", ""),
            environ.get(f"{prefix}_SECRET_ACCESS_KEY", ""),
        )
        if id and secret and not self._own.profile:
            return Keys(id=id, secret=secret, token=environ.get(f"{prefix}_SESSION_TOKEN", ""))
        for name in self._files():
            path = Path(name).expanduser()
            found = _in_file(path if path.is_absolute() else self._settings.home / name, self._profile())
            if found is not None:
                return found
        return self._of_library() if self._preset.variables == "AWS" else None

    def _of_library(self) -> Keys | None:
        """What AWS's own library finds (single sign-on, roles, the machine's own), where it is installed and
        has something to go by."""
        if not (self._settings.home / ".aws" / "config").exists() and not any(
            self._settings.environ.get(name)
            for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                         "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT")
        ):  # fmt: skip
            return None
        try:
            import botocore.exceptions
            import botocore.session
        except ImportError:
            return None
        try:
            profile = self._profile()
            session = botocore.session.Session(profile=None if profile == "default" else profile)
            found = session.get_credentials()
        except botocore.exceptions.BotoCoreError:
            return None
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
        expires = getattr(found, "_expiry_time", None)
        return Keys(
            id=frozen.access_key,
            secret=frozen.secret_key,
            token=frozen.token or "",
            expires_s=expires.timestamp() if expires is not None else 0.0,
        )


def _in_file(path: Path, profile: str) -> Keys | None:
    reader = configparser.RawConfigParser(strict=False)
    try:
        reader.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return None
    for name in (profile, f"profile {profile}"):
        told = dict(reader.items(name)) if reader.has_section(name) else {}
        if told.get("aws_access_key_id"):
            return Keys(
                id=told["aws_access_key_id"].strip(),
                secret=told.get("aws_secret_access_key", "").strip(),
                token=told.get("aws_session_token", "").strip(),
            )
    return None


def _split(url: str, preset: Preset) -> tuple[str, str, str]:
    """Region ("": not in the URL), bucket and key."""
    rest = url.partition("://")[2]
    region = ""
    if preset.region_in_url:
        region, _, rest = rest.partition("/")
    bucket, _, key = rest.partition("/")
    if not bucket:
        form = f"{preset.scheme}://{'REGION/' if preset.region_in_url else ''}BUCKET/KEY"
        raise UrlUnknown(f"`{url}` names no bucket", f"write {form}")
    return region, bucket, key


def _account(own: Settings, settings: StoreSettings, preset: Preset) -> str:
    found = own.account or _first(settings.environ, preset.account_variables)
    if not found and preset.account_file:
        try:
            found = (settings.home / preset.account_file).read_text(encoding="utf-8").strip()
        except OSError:
            found = ""
    if not found:
        places = " or ".join(preset.account_variables)
        file = f", or write it to ~/{preset.account_file}" if preset.account_file else ""
        raise UrlUnknown(
            f"the account of {preset.title} is not known",
            f"set {places}{file}, or `{preset.scheme}: {{account: ...}}` in buckets.yaml",
        )
    return found


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")
