"""Google's account under the fake of Compute Engine: credentials, refusals in its words, operations."""

from __future__ import annotations

import base64
import functools
import json
import urllib.parse
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, route

PROJECT: Final = "lab-1"
ACCOUNT: Final = "argosy@lab-1.iam.gserviceaccount.com"
REFRESH: Final = "1//refresh-token-of-the-fake"
FOREIGN: Final = "token-of-another-provider"
POOL: Final = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/lab/providers/github"
TOKEN: Final = "ya29.token-of-the-fake"
BASE: Final = "https://www.googleapis.com/compute/v1"
PATH: Final = "/compute/v1/projects/{project}"
ZONE: Final = PATH + "/zones/{zone}"
_LENDS: Final = (
    f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
)
_AS_JSON: Final = {"type": "json", "subject_token_field_name": "access_token"}
_REASONS: Final = {"not-found": "notFound", "invalid": "invalid", "rate": "rateLimitExceeded"}


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    permissions: list[str]


class Lend(msgspec.Struct, forbid_unknown_fields=True):
    scope: list[str]


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class FakeGcpAccount(FakeCloud):
    def begin(self) -> None:
        self.op_s, self.page = 0.0, 500
        self.forbidden: set[str] = set()  # permissions that these credentials have not
        self.operations: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, str] = {}  # requestId -> name of its operation
        self.limits: dict[tuple[str, str], float] = {}  # (region or "", metric) -> limit
        self.tokens: dict[str, float] = {}  # -> until

    def environ(self) -> dict[str, str]:
        """Settings of a server; credentials are a file, see `sign_in`."""
        return {"ARGOSY_GCP_API_URL": self.url, "GCE_METADATA_HOST": self.url.removeprefix("http://")}

    def federate(self, folder: Path, *, acts: bool = False, url: str = "") -> dict[str, str]:
        """The settings, with credentials that exchange a token of somebody else's: in a file of `folder`, or
        what `url` answers as JSON."""
        token = folder / "token"
        token.write_text(f"{FOREIGN}\n")
        answer = {"url": url, "headers": {"metadata": "true"}, "format": _AS_JSON}
        told: dict[str, Any] = {
            "type": "external_account",
            "audience": POOL,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": answer if url else {"file": str(token)},
        }
        if acts:
            told["service_account_impersonation_url"] = _LENDS
        path = folder / "credentials.json"
        path.write_text(json.dumps(told))
        return {**self.environ(), "GOOGLE_APPLICATION_CREDENTIALS": str(path)}

    def sign_in(self, folder: Path, *, service: bool = False, acts: bool = False) -> dict[str, str]:
        """The settings, with credentials in `folder`: a person's, a key of a service account, or a person's
        who acts as a service account."""
        told: dict[str, str] = {
            "type": "authorized_user",
            "client_id": "id.apps.googleusercontent.com",
            "client_secret": "secret-of-the-client",
            "refresh_token": REFRESH,
            "quota_project_id": PROJECT,
        }
        if service:
            pem = _key().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            told = {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "k1",
                "private_key": pem.decode(),
                "client_email": ACCOUNT,
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        path = folder / "credentials.json"
        acting = {"type": "impersonated_service_account", "service_account_impersonation_url": _LENDS}
        path.write_text(json.dumps({**acting, "source_credentials": told} if acts else told))
        return {**self.environ(), "GOOGLE_APPLICATION_CREDENTIALS": str(path)}

    # -- what Google says -----------------------------------------------------------------------------------

    def knows(self, ask: Ask[Any]) -> bool:
        token = ask.headers.get("authorization", "").removeprefix("Bearer ")
        return self.now() < self.tokens.get(token, 0.0)

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        reason = _REASONS.get(code, code)
        first = {"message": text, "domain": "global", "reason": reason}
        return Answer(status, {"error": {"code": status, "message": text, "errors": [first]}})

    def api_off(self) -> Answer:
        return self.error(
            403,
            "accessNotConfigured",
            "Compute Engine API has not been used in project 123 before or it is disabled. Enable it by "
            "visiting https://console.developers.google.com/apis/api/compute.googleapis.com then retry.",
        )

    def no_billing(self) -> Answer:
        return self.error(
            403,
            "forbidden",
            "This API method requires billing to be enabled. Please enable billing on project #123.",
        )

    def no_project(self) -> Answer:
        return self.error(404, "notFound", f"The resource 'projects/{PROJECT}' was not found")

    def suspended(self) -> Answer:
        text = f"Permission denied: Consumer 'project:{PROJECT}' has been suspended."
        return self.error(403, "CONSUMER_SUSPENDED", text)

    def _missing(self, path: str) -> Answer:
        return self.error(404, "not-found", f"The resource '{path}' was not found")

    # -- the token service and the metadata of a machine ----------------------------------------------------

    @route("POST", "/token", body=bytes, open=True)
    def token(self, ask: Ask[bytes]) -> object:
        if ask.headers.get("content-type") != "application/x-www-form-urlencoded":
            raise Answer(400, {"error": "invalid_request", "error_description": "Bad Request"})
        form = dict(urllib.parse.parse_qsl(ask.body.decode()))
        if form.get("grant_type") == "refresh_token":
            good = form.get("refresh_token") == REFRESH and not self.expired
            text = "Token has been expired or revoked."
        else:
            good, text = self._signed(form.get("assertion", "")), "Invalid JWT Signature."
        if not good:
            raise Answer(400, {"error": "invalid_grant", "error_description": text})
        return self._token()

    @route("POST", "/v1/projects/-/serviceAccounts/{account}:generateAccessToken", body=Lend)
    def lend(self, ask: Ask[Lend]) -> object:
        """A token of a service account, for who may act as it."""
        if ask.parts["account"] != ACCOUNT:
            text = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource"
            raise self.error(403, "forbidden", text)
        return {"accessToken": self._token()["access_token"], "expireTime": "2026-11-29T01:00:00Z"}

    @route("POST", "/v1/token", body=bytes, open=True)
    def exchange(self, ask: Ask[bytes]) -> object:
        """The security token service (RFC 8693)."""
        form = dict(urllib.parse.parse_qsl(ask.body.decode()))
        good = form.pop("subject_token", "") == FOREIGN and not self.expired
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": POOL,
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        if form != wanted:
            raise Answer(400, {"error": "invalid_request", "error_description": f"Bad request: {form}"})
        if not good:
            text = "The size of mapped attribute google.subject exceeds the 127 bytes limit."
            raise Answer(400, {"error": "invalid_grant", "error_description": text})
        return {**self._token(), "issued_token_type": wanted["requested_token_type"]}

    @route("GET", "/identity", open=True)
    def identity(self, ask: Ask[None]) -> object:
        """What the identity provider of another cloud says to its machines."""
        if ask.headers.get("metadata") != "true":
            raise Answer(403, {})
        return {"access_token": FOREIGN}

    def _token(self) -> dict[str, object]:
        token = f"{TOKEN}-{len(self.tokens)}"
        self.tokens[token] = self.now() + 3600
        return {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def _signed(self, assertion: str) -> bool:
        try:
            head, claims, signature = assertion.split(".")
            _key().public_key().verify(
                _bytes(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (ValueError, InvalidSignature):
            return False
        said = json.loads(_bytes(claims))
        fresh = said["iat"] - 60 <= self.now() <= said["exp"] <= said["iat"] + 3600
        return fresh and said["iss"] == ACCOUNT and said["aud"].endswith("/token") and bool(said["scope"])

    @route("GET", "/computeMetadata/v1/{a}/{b}/{c}/{d}", open=True)
    def metadata_token(self, ask: Ask[None]) -> object:
        if ask.headers.get("metadata-flavor") != "Google" or ask.parts["d"] != "token":
            raise Answer(403, {})
        return Answer(200, self._token(), {"metadata-flavor": "Google"})

    @route("GET", "/computeMetadata/v1/project/project-id", open=True)
    def metadata_project(self, ask: Ask[None]) -> object:
        return Answer(200, PROJECT.encode(), {"metadata-flavor": "Google"})

    # -- operations -----------------------------------------------------------------------------------------

    def _known(self, ask: Ask[Any]) -> dict[str, Any] | None:
        """What became of an order that is repeated."""
        name = self.requests.get(ask.query.get("requestId", ""))
        return self._shown_operation(name) if name is not None else None

    def _operation(
        self, ask: Ask[Any], place: str, errors: list[dict[str, str]], group: str = ""
    ) -> dict[str, Any]:
        name = f"operation-{len(self.operations)}"
        self.operations[name] = {"place": place, "due": self.now() + self.op_s, "errors": errors}
        self.operations[name]["group"] = group
        if "requestId" in ask.query:
            self.requests[ask.query["requestId"]] = name
        return self._shown_operation(name)

    def _shown_operation(self, name: str) -> dict[str, Any]:
        kept = self.operations[name]
        done = self.now() >= kept["due"]
        told: dict[str, Any] = {"kind": "compute#operation", "name": name, "operationType": "insert"}
        told |= {"status": "DONE" if done else "RUNNING", "progress": 100 if done else 0}
        told |= {"operationGroupId": kept["group"]} if kept["group"] else {}
        if done and kept["errors"]:
            told |= {"error": {"errors": kept["errors"]}, "httpErrorStatusCode": 400}
            told["httpErrorMessage"] = "BAD REQUEST"
        return told

    @route("GET", ZONE + "/operations", query=("filter", "maxResults"))
    def zone_operations(self, ask: Ask[None]) -> object:
        key, _, group = ask.query["filter"].partition("=")
        if key != "operationGroupId":
            raise self.error(400, "invalid", "Invalid value for field 'filter'")
        names = [name for name, each in self.operations.items() if each["group"] == group]
        return {"kind": "compute#operationList", "items": [self._shown_operation(name) for name in names]}

    @route("POST", "/v1/projects/{project}:testIamPermissions", body=Asked)
    def test_permissions(self, ask: Ask[Asked]) -> object:
        return {"permissions": [each for each in ask.body.permissions if each not in self.forbidden]}

    @route("GET", ZONE + "/operations/{name}")
    def zone_operation(self, ask: Ask[None]) -> object:
        return self._looked_up(ask, f"zones/{ask.parts['zone']}")

    @route("GET", PATH + "/global/operations/{name}")
    def global_operation(self, ask: Ask[None]) -> object:
        return self._looked_up(ask, "global")

    @route("GET", PATH + "/regions/{region}/operations/{name}")
    def region_operation(self, ask: Ask[None]) -> object:
        return self._looked_up(ask, f"regions/{ask.parts['region']}")

    def _looked_up(self, ask: Ask[None], place: str) -> object:
        name = ask.parts["name"]
        if name not in self.operations or self.operations[name]["place"] != place:
            raise self._missing(f"projects/{PROJECT}/{place}/operations/{name}")
        return self._shown_operation(name)


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
