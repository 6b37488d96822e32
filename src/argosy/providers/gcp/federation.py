"""Workload identity federation: a token of somebody else's (GitHub, a Kubernetes cluster, another cloud) is
exchanged for one of Google's. Pure, but for the file.

The file of credentials holds no secret; it says where the other token is: https://google.aip.dev/auth/4117
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border

STS: Final = "https://sts.googleapis.com/v1/token"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_WANTED: Final = "urn:ietf:params:oauth:token-type:access_token"


class _Format(msgspec.Struct, frozen=True):
    type: str = "text"  # text | json
    subject_token_field_name: str = ""


class Source(msgspec.Struct, frozen=True):
    """Where the other token is."""

    file: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    format: _Format = _Format()
    environment_id: str = ""  # aws1: requests that AWS would sign
    executable: dict[str, Any] = {}  # a program that prints it


def refuse_source(source: Source | None) -> None:
    """Raises `CredentialsRejected` for a source that is not read here."""
    if source is not None and (source.file or source.url):
        return
    kind = "a program" if source is not None and source.executable else "a role of AWS"
    if source is None or not (source.executable or source.environment_id):
        kind = "nothing"
    raise border.CredentialsRejected(
        f"the `external_account` credentials take their token from {kind}, which is not read here; name a "
        "`file` or a `url` in `credential_source` (`gcloud iam workload-identity-pools "
        "create-cred-config --credential-source-file=FILE`)"
    )


def token_in_file(source: Source) -> str:
    try:
        text = Path(source.file).read_bytes()
    except OSError as error:
        raise border.CredentialsRejected(
            f"{source.file}, in which `external_account` credentials look for a token, cannot be read "
            f"({error.strerror or error}); whoever makes the token has to write it there"
        ) from None
    return token_in(source, text, source.file)


def token_in(source: Source, answer: bytes, place: str) -> str:
    """The token in a file or an answer."""
    text = answer.decode("utf-8", "replace").strip()
    if source.format.type == "json":
        try:
            text = str(msgspec.json.decode(answer)[source.format.subject_token_field_name])
        except (msgspec.MsgspecError, KeyError, TypeError):
            text = ""
    if not text:
        raise border.CredentialsRejected(
            f"{place} holds no token; `credential_source` of the `external_account` credentials says where "
            "it is"
        )
    return text


def exchange(subject: str, *, audience: str, kind: str, scope: str) -> dict[str, str]:
    """The form that the token service is asked with."""
    return {
        "grant_type": _GRANT,
        "audience": audience,
        "scope": scope,
        "requested_token_type": _WANTED,
        "subject_token": subject,
        "subject_token_type": kind,
    }
