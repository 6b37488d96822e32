"""Files to and from folders of the server: uploads that go on where they were, downloads, whole trees."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from argosy.api.endpoint import PREFIX
from argosy.api.location import Location
from argosy.client.connection import Broken, unreachable
from argosy.client.links import Links
from argosy.model.errors import ArgosyError, Problem

_PIECE: Final = 16 << 20  # in one request: so much is sent again at most
_TRIES: Final = 5
OnBytes = Callable[[int], None]


class Sent(NamedTuple):
    files: int
    bytes: int


class FolderFiles:
    """The files of one folder. `name`: of the folder, or its id. Raises what the server says."""

    def __init__(self, location: Location, name: str, on_bytes: OnBytes = lambda size: None) -> None:
        self._location, self._links, self._on_bytes = location, Links(location), on_bytes
        self._base = f"{PREFIX}/folders/{quote(name, safe='')}"

    def close(self) -> None:
        self._links.close()

    # -- up -------------------------------------------------------------------------------------------

    def upload(self, source: Path, path: str, *, replace: bool) -> Sent:
        """A file, or a folder with all files in it. Links are not followed, and not sent."""
        if source.is_dir():
            sent = Sent(0, 0)
            for file in _files_of(source):
                below = f"{path}/{file.relative_to(source).as_posix()}".strip("/")
                size = self._upload_file(file, below, replace=replace)
                sent = Sent(sent.files + 1, sent.bytes + size)
            return sent
        if not source.is_file():
            raise ArgosyError("not-found", f"there is no `{source}` here", hint="check the path")
        target = path if path and not path.endswith("/") else f"{path}{source.name}"
        return Sent(1, self._upload_file(source, target, replace=replace))

    def _upload_file(self, source: Path, path: str, *, replace: bool) -> int:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            told = {"path": path, "sha256": digest, **({"replace": "true"} if replace else {})}
            metadata = ",".join(
                f"{key} {base64.b64encode(os.fsencode(value)).decode()}" for key, value in told.items()
            )
            headers = [("upload-length", str(size)), ("upload-metadata", metadata)]
            where = self._ask("POST", f"{self._base}/uploads", headers)["location"]
            at, tries = 0, 0
            while at < size:
                try:
                    at = self._send_piece(file.fileno(), where, at, size)
                    tries = 0
                except Broken as error:
                    tries += 1
                    if tries == _TRIES:
                        raise unreachable(self._location, str(error)) from None
                    time.sleep(0.2 * tries)
                    at = int(self._ask("HEAD", where)["upload-offset"])
        return size

    def _send_piece(self, fd: int, where: str, at: int, size: int) -> int:
        data = os.pread(fd, min(_PIECE, size - at), at)
        if not data:
            raise ArgosyError("conflict", "the file became shorter while it was sent", hint="send it again")
        headers = [("upload-offset", str(at)), ("content-type", "application/offset+octet-stream")]
        told = self._call("PATCH", where, headers, (data,))
        self._on_bytes(len(data))
        return int(told["upload-offset"])

    # -- down -----------------------------------------------------------------------------------------

    def download(self, path: str, target: Path) -> Sent:
        """A file, which appears when it is whole; it goes on where an earlier try stopped."""
        if target.is_dir():
            target = target / path.rpartition("/")[2]
        part = target.with_name(f".{target.name}.part")
        where = f"{self._base}/content?{urlencode({'path': path})}"
        with part.open("ab") as file:
            at = file.tell()
            etag_file = part.with_name(part.name + ".etag")
            tag = etag_file.read_text() if at and etag_file.exists() else ""
            headers = [("range", f"bytes={at}-")] if tag else []
            told = self._head(where)
            if told.get("etag", "") != tag:
                file.truncate(0)
                headers = []
            etag_file.write_text(told.get("etag", ""))
            size = int(told["content-length"])
            if not headers or at < size:
                self._ask("GET", where, headers, take=self._into(file.write))
        if part.stat().st_size != size:
            raise ArgosyError("transient", f"`{path}` came in part", hint="try again: it goes on from there")
        part.replace(target)
        etag_file.unlink(missing_ok=True)
        return Sent(1, size)

    def _head(self, where: str) -> dict[str, str]:
        """What a file is, by its first byte: `etag`, and its size as `content-length`."""
        told = self._ask("GET", where, [("range", "bytes=0-0")])
        size = told.get("content-range", "").rpartition("/")[2] or told.get("content-length", "0")
        return {"etag": told.get("etag", ""), "content-length": size}

    def download_tree(self, path: str, target: Path) -> Sent:
        """All below a folder, as one stream. Nothing is written outside of `target`."""
        where = f"{self._base}/archive?{urlencode({'path': path})}"
        read, write = os.pipe()
        failed: list[BaseException] = []

        def fetch() -> None:
            try:
                with os.fdopen(write, "wb") as out:
                    self._ask("GET", where, take=self._into(out.write))
            except BaseException as error:  # noqa: BLE001  raised in the thread that unpacks
                failed.append(error)

        import threading

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        files = size = 0
        try:
            with os.fdopen(read, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    archive.extract(member, target, filter="data")
                    files += member.isreg()
                    size += member.size if member.isreg() else 0
        except tarfile.TarError:
            if not failed:
                raise ArgosyError("transient", "the stream broke off", hint="try again") from None
        finally:
            thread.join()
        if failed:
            raise failed[0]
        return Sent(files, size)

    def _into(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def take(piece: bytes) -> None:
            write(piece)
            self._on_bytes(len(piece))

        return take

    # -- one call -------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        take: Callable[[bytes], object] = lambda piece: None,
    ) -> dict[str, str]:
        try:
            return self._call(method, target, headers, (), take)
        except Broken as error:
            raise unreachable(self._location, str(error)) from None

    def _call(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: Sequence[bytes],
        take: Callable[[bytes], object] = lambda piece: None,
    ) -> dict[str, str]:
        own = [("tus-resumable", "1.0.0"), *headers]
        if self._location.token:
            own.append(("authorization", f"Bearer {self._location.token}"))
        wrong: list[bytes] = []
        parser = self._links.ask(method, target, own, body, take, wrong.append)
        if parser.status >= 300:
            raise _refusal(parser.status, b"".join(wrong))
        return parser.headers


def _files_of(folder: Path) -> Iterator[Path]:
    for above, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            path = Path(above) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _refusal(status: int, body: bytes) -> ArgosyError:
    try:
        told = json.loads(body)
        return ArgosyError.from_problem(
            Problem(code=told["code"], what=told["what"], hint=told.get("hint", ""))
        )
    except (ValueError, KeyError, TypeError):
        return ArgosyError("internal", f"the server answered {status}")
