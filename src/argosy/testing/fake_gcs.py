"""Google Cloud Storage as its XML interface is, strict, over a shelf: bearers that one service account
signed, generations, signed addresses, and Google's own codes.

What the interface shares with S3 is answered by our own façade; what is Google's is checked and translated
here, and what Google does not have (`x-amz-…`) is refused. Source: Google's reference of the XML API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from argosy.facades.s3.app import S3
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.objects import ObjectProblem
from argosy.storage.shelf import Shelf

_ACCOUNT: Final = "tester@lab.iam.gserviceaccount.com"


class FakeGcs:
    """ASGI. `expired`: bearers are refused as too old; `key_file` writes the account's key."""

    def __init__(self, root: Path) -> None:
        self.shelf = Shelf(root, SystemClock(), SystemIds())
        self._s3 = S3(self.shelf, SystemClock(), keeper=None)
        self._key = rsa.generate_private_key(65537, 2048)
        self.expired = False
        self.asked: list[str] = []

    def key_file(self, path: Path) -> Path:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        told = {
            "type": "service_account",
            "client_email": _ACCOUNT,
            "private_key_id": "k1",
            "private_key": pem.decode(),
        }
        path.write_text(json.dumps(told))
        return path

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(f"{scope['method']} {scope['path']}")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        try:
            own = self._checked(scope, headers, query)
            if (wanted := headers.pop("x-goog-if-generation-match", "")) and wanted != "0":
                headers["if-match"] = await self._etag_of(scope, wanted)
            elif wanted:
                headers["if-none-match"] = "*"
        except _Refused as refused:
            await _answer(send, refused)
            return
        if source := headers.pop("x-goog-copy-source", ""):
            headers["x-amz-copy-source"] = quote(unquote(source))
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        inner = dict(scope, headers=sent, query_string=own.encode())

        async def translated(message: Any) -> None:
            if message["type"] == "http.response.start":
                told = dict(message["headers"])
                if etag := told.get(b"etag", b""):
                    told[b"x-goog-generation"] = _generation(etag.decode().strip('"')).encode()
                message = dict(message, headers=list(told.items()))
            await send(message)

        await self._s3(inner, receive, translated)

    def _checked(self, scope: Any, headers: dict[str, str], query: str) -> str:
        """The query without what proves who asks."""
        for name in headers:
            if name.startswith("x-amz-"):
                raise _Refused(400, "InvalidArgument", f"{name} is not Google's")
        if "X-Goog-Signature=" in query:
            return self._signed(scope, headers, query)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind != "Bearer":
            raise _Refused(401, "AuthenticationRequired", "Authentication required.")
        head, claims, signature = token.split(".")
        self._verify(f"{head}.{claims}", base64.urlsafe_b64decode(signature + "=="))
        told = json.loads(base64.urlsafe_b64decode(claims + "=="))
        if told["iss"] != _ACCOUNT or self.expired or told["exp"] < time.time():
            raise _Refused(401, "AuthenticationRequired", "Invalid Credentials: the token has expired")
        return query

    def _signed(self, scope: Any, headers: dict[str, str], query: str) -> str:
        text, _, signature = query.rpartition("&X-Goog-Signature=")
        told = dict(parse_qsl(text))
        stamp, day = told["X-Goog-Date"], told["X-Goog-Date"][:8]
        began = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if time.time() > began + int(told["X-Goog-Expires"]):
            raise _Refused(400, "ExpiredToken", "The provided token has expired.")
        path = scope["raw_path"].decode()
        host = "storage.googleapis.com"  # whom all of them are signed for
        request = f"{scope['method']}\n{path}\n{text}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        self._verify(
            f"GOOG4-RSA-SHA256\n{stamp}\n{day}/auto/storage/goog4_request\n{digest}", bytes.fromhex(signature)
        )
        return ""

    def _verify(self, text: str, signature: bytes) -> None:
        try:
            self._key.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise _Refused(403, "SignatureDoesNotMatch", "Access denied.") from None

    async def _etag_of(self, scope: Any, generation: str) -> str:
        bucket, _, key = unquote(scope["path"]).lstrip("/").partition("/")
        try:
            etag = (await self.shelf.head(bucket, key)).info.etag
        except ObjectProblem:
            raise _Refused(412, "PreconditionFailed", "there is no such object") from None
        if _generation(etag) != generation:
            raise _Refused(412, "PreconditionFailed", "another generation")
        return etag


class _Refused(Exception):
    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


def _generation(etag: str) -> str:
    return str(int(hashlib.sha256(etag.encode()).hexdigest()[:13], 16))


async def _answer(send: Any, refused: _Refused) -> None:
    told = f"<Code>{refused.code}</Code><Message>{refused}</Message>"
    body = f"<?xml version='1.0'?><Error>{told}</Error>".encode()
    head = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": False})
