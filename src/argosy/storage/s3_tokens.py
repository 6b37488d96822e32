"""Temporary keys from a store's token service (STS), which are good for a part of one bucket only.

With a `role` they are of that role (AssumeRole), else of the user (GetFederationToken, which a user's own
keys may ask for, and keys of a session may not). Source: Amazon's reference of the Security Token Service.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from argosy.infra.buckets import (
    AccessRefused,
    BucketError,
    CredentialsMissing,
    RequestRefused,
    StoreUnreachable,
)
from argosy.storage.one_call import Told, one_call
from argosy.storage.s3_mounts import KEYS_S
from argosy.storage.s3_signing import Asked, Keys, query_of, signed_headers

_NAME: Final = "argosy-mount"
_PARTITIONS: Final = {"cn-": "aws-cn:s3", "-gov-": "aws-us-gov:s3"}  # parts of Amazon's cloud, by region
_READS: Final = ("s3:GetObject",)
_WRITES: Final = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


class Scope(NamedTuple):
    """What keys are for: a bucket, what lies below a prefix of it ("": all of it), and for writing or not."""

    bucket: str
    prefix: str
    writes: bool


class TokenService(NamedTuple):
    """`endpoint`: as https://HOST; `role`: an ARN ("": the user's own rights); `is_wanted`: the user named
    one of both, so that a refusal is an error."""

    endpoint: str
    region: str
    title: str
    role: str
    is_wanted: bool
    now_s: Callable[[], float]

    def issue(self, keys: Keys, scope: Scope) -> Keys:
        """Keys for this alone. Raises a `BucketError`."""
        query = [
            ("Version", "2011-06-15"),
            ("Policy", session_policy(scope, self.region)),
            ("DurationSeconds", str(KEYS_S)),
        ]
        if self.role or self.is_wanted:  # a service of one's own knows no users, and needs no role
            query += [("Action", "AssumeRole"), ("RoleSessionName", _NAME)]
            query += [("RoleArn", self.role)] if self.role else []
        else:
            query += [("Action", "GetFederationToken"), ("Name", _NAME)]
        body = query_of(query).encode()
        split = urlsplit(self.endpoint)
        kind = {"content-type": "application/x-www-form-urlencoded"}
        asked = Asked("POST", split.netloc, split.path or "/", "")
        digest = hashlib.sha256(body).hexdigest()
        headers = signed_headers(keys, self.region, self.now_s(), asked, kind, digest, "sts")
        return self._keys_in(one_call("POST", self.endpoint, headers, body))

    def _keys_in(self, told: Told) -> Keys:
        found = {name: told.field(name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
        if told.status < 300 and all(found.values()):
            ends = datetime.fromisoformat(told.field("Expiration").replace("Z", "+00:00"))
            return Keys(
                id=found["AccessKeyId"],
                secret=found["SecretAccessKey"],
                token=found["SessionToken"],
                expires_s=ends.timestamp(),
            )
        raise self._refusal(told.status, told.field("Code"), told.field("Message"))

    def _refusal(self, status: int, code: str, message: str) -> BucketError:
        what = f"{self.title}'s token service gives no temporary keys ({message or code or status})"
        role = f"the role {self.role}" if self.role else "the user"
        hint = (
            f"let {role} do sts:{'AssumeRole' if self.role else 'GetFederationToken'}, or name another `role`"
        )
        if status >= 500:
            return StoreUnreachable(what, "it is tried again by itself")
        if code in ("InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"):
            return CredentialsMissing(what, "look at the server's own credentials")
        return AccessRefused(what, hint) if status == 403 else RequestRefused(what, hint)


def session_policy(scope: Scope, region: str = "") -> str:
    """What keys may do at most, as IAM's JSON.

    >>> '"arn:aws:s3:::b/run/*"' in session_policy(Scope("b", "run/", writes=False))
    True
    """
    partition = next((name for mark, name in _PARTITIONS.items() if mark in region), "aws:s3")
    bucket = f"arn:{partition}:::{scope.bucket}"
    listing: dict[str, Any] = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket]}
    if scope.prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{_plain(scope.prefix)}*"]}}
    actions = [*_READS, *(_WRITES if scope.writes else ())]
    keys = ["kms:Decrypt", *(["kms:GenerateDataKey"] if scope.writes else [])]
    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": actions, "Resource": [f"{bucket}/{_plain(scope.prefix)}*"]},
        listing,
        {
            "Effect": "Allow",
            "Action": keys,
            "Resource": ["*"],
            "Condition": {"StringLike": {"kms:ViaService": "s3.*"}},
        },
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _plain(prefix: str) -> str:
    """In a policy, `*`, `?` and `$` of a name stand for themselves like this."""
    return re.sub(r"[*?$]", lambda match: f"${{{match[0]}}}", prefix)
