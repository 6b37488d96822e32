"""Bodies as S3's clients send them: plain, or in chunks of their own, with signatures and a checksum at the
end. What a body claims to be is checked before anybody can see it."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol

from argosy.facades.s3.signatures import ChunkSigner, Signed
from argosy.model.objects import ObjectProblem

_STREAMING: Final = "STREAMING-"
_SMALL_BYTES: Final = 512 << 10
_LINE_MAX: Final = 8 << 10
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]+)(?:;chunk-signature=([0-9a-f]{64}))?")
#: Checksums that are checked and told again.
CHECKSUMS: Final = (
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
)


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _digest_of(name: str) -> Digest:
    if name.endswith("crc32"):
        return _Crc32()
    if name.endswith(("crc32c", "crc64nvme")):
        from argosy.facades.s3.crc import crc32c, crc64nvme  # with numpy, which few clients need

        return crc32c() if name.endswith("crc32c") else crc64nvme()
    return hashlib.sha1(usedforsecurity=False) if name.endswith("sha1") else hashlib.sha256()


class Body:
    """The bytes of one request, checked as they pass. `checksums` are right once `pieces` has ended."""

    def __init__(self, headers: Mapping[str, str], signed: Signed | None) -> None:
        self._headers, self._signed = headers, signed
        payload = signed.payload if signed is not None else headers.get("x-amz-content-sha256", "")
        self._chunked = payload.startswith(_STREAMING)
        self._signs = payload.startswith("STREAMING-AWS4-HMAC-SHA256")
        if self._signs and signed is None:
            self._signs = False  # over the unix socket nobody is asked who he is
        self._sha256 = "" if self._chunked or len(payload) != 64 else payload
        self.checksums = {name: headers[name] for name in CHECKSUMS if name in headers}
        trailer = headers.get("x-amz-trailer", "").strip().lower()
        self._digests = {name: _digest_of(name) for name in {*self.checksums, trailer} if name in CHECKSUMS}
        self._total = hashlib.sha256() if self._sha256 else None
        self._md5 = hashlib.md5(usedforsecurity=False) if "content-md5" in headers else None

    async def pieces(self, received: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The object's bytes. Raises ObjectProblem when they are not what the request says."""
        if self.is_small:
            async for piece in received:
                yield piece
            return
        source = self._unchunked(received) if self._chunked else received
        size = 0
        async for piece in source:
            size += len(piece)
            self._digest(piece)
            yield piece
        self._check(size)

    @property
    def is_small(self) -> bool:
        """Whether `pieces` leaves it to `check_held` to look at them, in a thread."""
        length = self._headers.get("content-length", "")
        return not self._chunked and length.isdigit() and int(length) <= _SMALL_BYTES

    def check_held(self, pieces: Sequence[bytes]) -> str:
        """The MD5 of a small body, where the request gives one to compare; else "". Raises ObjectProblem when
        it is not what the request says."""
        for piece in pieces:
            self._digest(piece)
        self._check(sum(map(len, pieces)))
        return self._md5.hexdigest() if self._md5 is not None else ""

    def _digest(self, piece: bytes) -> None:
        for digest in self._digests.values():
            digest.update(piece)
        for each in (self._total, self._md5):
            if each is not None:
                each.update(piece)

    def _check(self, size: int) -> None:
        if self._total is not None and self._total.hexdigest() != self._sha256:
            raise ObjectProblem("XAmzContentSHA256Mismatch", "the body is not what was signed")
        if self._md5 is not None:
            given = self._headers["content-md5"]
            if base64.b64encode(self._md5.digest()).decode() != given:
                raise ObjectProblem("BadDigest", "the body's MD5 is not the one of Content-MD5")
        for name, digest in self._digests.items():
            right = base64.b64encode(digest.digest()).decode()
            if self.checksums.setdefault(name, right) != right:
                raise ObjectProblem("BadDigest", f"the body's checksum is not the one of {name}")
        said = self._headers.get("x-amz-decoded-content-length", "")
        if self._chunked and said.isdigit() and int(said) != size:
            raise ObjectProblem("IncompleteBody", f"{size} bytes came, and {said} were announced")

    async def _unchunked(self, received: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        source = _Lines(received)
        signer = ChunkSigner(self._signed) if self._signs and self._signed is not None else None
        while True:
            found = _CHUNK.fullmatch(await source.line())
            if found is None or (signer is not None and found[2] is None):
                raise ObjectProblem("InvalidRequest", "the body's chunks are not well formed")
            left, digest = int(found[1], 16), hashlib.sha256()
            while left:
                piece = await source.some(left)
                left -= len(piece)
                if signer is not None:
                    digest.update(piece)
                yield piece
            if signer is not None:
                signer.check(digest.hexdigest(), found[2].decode())
            if int(found[1], 16) == 0:
                await self._trailers(source, signer)
                return
            if await source.line():
                raise ObjectProblem("InvalidRequest", "the body's chunks are not well formed")

    async def _trailers(self, source: _Lines, signer: ChunkSigner | None) -> None:
        text = b""
        while line := await source.line(end_is_fine=True):
            name, _, value = line.partition(b":")
            key = name.decode("latin-1").strip().lower()
            if key == "x-amz-trailer-signature":
                if signer is not None:
                    signer.check_trailer(text, value.strip().decode("latin-1"))
                continue
            text += name.strip().lower() + b":" + value.strip() + b"\n"
            if key in CHECKSUMS:
                self.checksums[key] = value.strip().decode("latin-1")


class _Lines:
    """A stream, by lines and by bytes."""

    def __init__(self, received: AsyncIterator[bytes]) -> None:
        self._received, self._held = received, b""

    async def _more(self) -> bool:
        async for piece in self._received:
            self._held += piece
            return True
        return False

    async def line(self, *, end_is_fine: bool = False) -> bytes:
        while b"\r\n" not in self._held:
            if len(self._held) > _LINE_MAX or not await self._more():
                if end_is_fine and not self._held:
                    return b""
                raise ObjectProblem("IncompleteBody", "the body ended before it was whole")
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    async def some(self, most: int) -> bytes:
        """At least one byte, at most `most`."""
        if not self._held and not await self._more():
            raise ObjectProblem("IncompleteBody", "the body ended before it was whole")
        piece, self._held = self._held[:most], self._held[most:]
        return piece
