"""Files to and from folders of the server: uploads that go on where they were, downloads, whole trees."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from argosy.api.endpoint import PREFIX
from argosy.api.location import Location
from argosy.client.connection import Broken, FileSpan, unreachable
from argosy.client.landing import check_may_land
from argosy.client.links import Links
from argosy.model.errors import ArgosyError, Problem

_PIECE: Final = 1 << 20  # is read at once
_STEP: Final = 8 << 20  # is sent at once
_PART: Final = 256 << 20  # in one request
_LAST: Final = 16 << 20  # in the last one: it waits for the sum
_SMALL: Final = 1 << 20  # a file up to this goes with its announcement
_AT_ONCE: Final = 4  # files of a folder
_TRIES: Final = 5
_BUSY: Final = "receiving bytes already"  # by an earlier connection, as the server says it
_BYTES: Final = "application/offset+octet-stream"
OnBytes = Callable[[int], None]


class Sent(NamedTuple):
    files: int
    bytes: int


@contextmanager
def _room_for(path: str) -> Iterator[None]:
    """A full disk on this side, in words."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ArgosyError(
            "disk-full",
            f"the disk here is full: `{path}` did not come whole",
            hint="make room and repeat the command: a file goes on where it was",
        ) from None


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """A file gets its name when all of it is there. Raises OSError, TarError."""
    if not member.isreg():
        archive.extract(member, target, filter="data")
        return
    above, _, name = member.name.rpartition("/")
    hidden = f"{above}/.{name}.part".lstrip("/")
    try:
        archive.extract(member.replace(name=hidden, deep=False), target, filter="data")
        (target / hidden).replace(target / member.name)
    except BaseException:
        (target / hidden).unlink(missing_ok=True)
        raise


class FolderFiles:
    """The files of one folder. `name`: of the folder, or its id. Raises what the server says."""

    def __init__(self, location: Location, name: str, on_bytes: OnBytes = lambda size: None) -> None:
        self._location, self._links, self._on_bytes = location, Links(location), on_bytes
        self._base = f"{PREFIX}/folders/{quote(name, safe='')}"

    def close(self) -> None:
        self._links.close()

    # -- up -------------------------------------------------------------------------------------------

    def upload(self, source: Path, path: str, *, replace: bool) -> Sent:
        """A file, or a folder with all files in it. Links are not followed, and not sent. Called again after
        it broke off, it sends only what is not there yet."""
        if source.is_dir():
            return self._upload_tree(source, path, replace=replace)
        if not source.is_file():
            raise ArgosyError("not-found", f"there is no `{source}` here", hint="check the path")
        target = path if path and not path.endswith("/") else f"{path}{source.name}"
        return Sent(1, self._upload_file(source, target, replace=replace))

    def _upload_tree(self, source: Path, path: str, *, replace: bool) -> Sent:
        """Several files at a time: a small one is one request, whose time is mostly the way."""
        import threading
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        broken = threading.Event()

        def one(file: Path) -> int:
            if broken.is_set():
                return 0
            below = f"{path}/{file.relative_to(source).as_posix()}".strip("/")
            return self._upload_file(file, below, replace=replace)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sending = [pool.submit(one, file) for file in _files_of(source)]
            try:
                wait(sending, return_when=FIRST_EXCEPTION)
            finally:
                broken.set()
                for each in sending:
                    each.cancel()
        done = [each.result() for each in sending if not each.cancelled()]
        return Sent(len(done), sum(done))

    def _upload_file(self, source: Path, path: str, *, replace: bool) -> int:
        with source.open("rb") as file:
            st = os.fstat(file.fileno())
            going = _Going(file, st.st_size, path, replace=replace, key=_key(source, st))
            if st.st_size <= _SMALL:
                going.first = os.pread(going.fd, _SMALL, 0)
                going.sha256 = hashlib.sha256(going.first).hexdigest()
            self._announce(going)
            tries = 0
            while not going.done:
                at = going.at
                try:
                    self._send(going)
                except Broken as error:
                    tries = 0 if going.at > at else tries + 1
                    if tries == _TRIES:
                        raise unreachable(self._location, str(error)) from None
                    time.sleep(0.2 * tries)
                    self._announce(going)
        return st.st_size

    def _announce(self, going: _Going) -> None:
        """Where the upload is: at its begin, or where an earlier one broke off."""
        for tries in range(1, _TRIES * 2):
            told = {"path": going.path, "key": going.key, "sha256": going.sha256}
            told |= {"replace": "true"} if going.replace else {}
            metadata = ",".join(
                f"{key} {base64.b64encode(os.fsencode(value)).decode()}"
                for key, value in told.items()
                if value
            )
            headers = [("upload-length", str(going.size)), ("upload-metadata", metadata)]
            body = (going.first,) if going.first else ()
            headers += [("content-type", _BYTES)] if body else []
            try:
                status, answer = self._answered("POST", f"{self._base}/uploads", headers, body)
            except Broken as error:
                if tries == _TRIES:
                    raise unreachable(self._location, str(error)) from None
            except ArgosyError as error:
                if error.code == "conflict" and not going.sha256 and "sha256" in error.hint:
                    going.sha256 = _sum(going.fd)  # a file of that size is there: is it this one?
                elif _BUSY not in error.what or tries == _TRIES * 2 - 1:
                    raise
            else:
                going.where = urlsplit(answer.get("location", "")).path
                going.at = int(answer.get("upload-offset", 0))
                going.done = status == 200 or bool(body and going.at == going.size) or not going.size
                return
            time.sleep(0.1 * tries)

    def _send(self, going: _Going) -> None:
        """Bytes from where it is: the last request, which is short, carries the sum of all, which is made
        meanwhile. Raises Broken; `at` is at least what was confirmed."""
        last = going.size - going.at <= _LAST
        end = going.size if last else min(going.at + _PART, going.size - _LAST)
        if going.sum is None and not going.sha256:
            going.sum = _Summing(going.fd)
        headers = [("upload-offset", str(going.at)), ("content-type", _BYTES)]
        if last:
            going.sha256 = going.sha256 or going.sum_of_all()
            headers.append(("upload-sha256", going.sha256))
        told = self._put("PATCH", going.where, headers, going.at, end, going.file)
        going.at = int(told["upload-offset"])
        going.done = last

    def _put(
        self, method: str, where: str, headers: Sequence[tuple[str, str]], at: int, end: int, file: BinaryIO
    ) -> dict[str, str]:
        wrong: list[bytes] = []
        span = FileSpan(file, at, end, _STEP, self._on_bytes)
        try:
            parser = self._links.put_file(method, where, self._with_own(headers), span, wrong.append)
        except EOFError:
            raise ArgosyError(
                "conflict", "the file became shorter while it was sent", hint="send it again"
            ) from None
        if parser.status >= 300:
            error = _refusal(parser.status, b"".join(wrong))
            if _BUSY in error.what:  # the server still has what a killed client was sending
                raise Broken(error.what)
            raise error
        return parser.headers

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        """A file from a stream that comes once, in place of what is there. Raises what `pieces` raises."""
        metadata = f"path {base64.b64encode(os.fsencode(path)).decode()},replace dHJ1ZQ=="
        headers = [("upload-length", str(size)), ("upload-metadata", metadata)]
        where = urlsplit(self._ask("POST", f"{self._base}/uploads", headers)["location"]).path
        if size:
            headers = [("upload-offset", "0"), ("content-type", _BYTES)]
            wrong: list[bytes] = []
            try:
                parser = self._links.put(
                    where, self._with_own(headers), size, pieces, wrong.append, method="PATCH"
                )
            except Broken as error:
                raise unreachable(self._location, str(error)) from None
            if parser.status >= 300:
                raise _refusal(parser.status, b"".join(wrong))

    # -- down -----------------------------------------------------------------------------------------

    def download(self, path: str, target: Path) -> Sent:
        """A file, which appears when it is whole; it goes on where an earlier try stopped. Raises
        "disk-full"."""
        if target.is_dir():
            target = target / path.rpartition("/")[2]
        check_may_land(target)
        part = target.with_name(f".{target.name}.part")
        where = f"{self._base}/content?{urlencode({'path': path})}"
        with _room_for(path), part.open("ab") as file:
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

    def read(
        self,
        path: str,
        span: str,
        begin: Callable[[int, dict[str, str]], object],
        take: Callable[[bytes], object],
    ) -> None:
        """The bytes of a file, or those that `span` (as the header `Range`) names. `begin` gets status and
        the headers before the first of them."""
        where = f"{self._base}/content?{urlencode({'path': os.fsencode(path)})}"
        headers = self._with_own([("range", span)] if span else [])
        wrong: list[bytes] = []
        try:
            parser = self._links.ask("GET", where, headers, (), take, wrong.append, begin)
        except Broken as error:
            raise unreachable(self._location, str(error)) from None
        if parser.status >= 300:
            raise _refusal(parser.status, b"".join(wrong))

    def _head(self, where: str) -> dict[str, str]:
        """What a file is, by its first byte: `etag`, and its size as `content-length`."""
        told = self._ask("GET", where, [("range", "bytes=0-0")])
        size = told.get("content-range", "").rpartition("/")[2] or told.get("content-length", "0")
        return {"etag": told.get("etag", ""), "content-length": size}

    def download_tree(self, path: str, target: Path) -> Sent:
        """All below a folder, as one stream. Nothing is written outside of `target`, and a file has its name
        when it is whole. Raises "disk-full"."""
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
            with (
                _room_for(path or "all of it"),
                os.fdopen(read, "rb") as stream,
                tarfile.open(fileobj=stream, mode="r|") as archive,
            ):
                for member in archive:
                    _unpack(archive, member, target)
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
            return self._answered(method, target, headers, (), take)[1]
        except Broken as error:
            raise unreachable(self._location, str(error)) from None

    def _answered(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: Sequence[bytes],
        take: Callable[[bytes], object] = lambda piece: None,
    ) -> tuple[int, dict[str, str]]:
        wrong: list[bytes] = []
        parser = self._links.ask(method, target, self._with_own(headers), body, take, wrong.append)
        if parser.status >= 300:
            raise _refusal(parser.status, b"".join(wrong))
        return parser.status, parser.headers

    def _with_own(self, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        own = [("tus-resumable", "1.0.0"), *headers]
        if self._location.token:
            own.append(("authorization", f"Bearer {self._location.token}"))
        return own


class _Summing:
    """The SHA-256 of a file, made in a thread while its bytes are sent."""

    def __init__(self, fd: int) -> None:
        import threading

        self._fd, self._found = os.dup(fd), ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = _sum(self._fd)
        finally:
            os.close(self._fd)

    def result(self) -> str:
        self._thread.join()
        return self._found


@dataclass
class _Going:
    """One file on its way."""

    file: BinaryIO
    size: int
    path: str
    replace: bool
    key: str  # the same for the same bytes of the same file, in whatever process
    sha256: str = ""  # "": not made yet
    sum: _Summing | None = None
    first: bytes = b""  # all of it, where it is small
    where: str = ""
    at: int = 0
    done: bool = False

    @property
    def fd(self) -> int:
        return self.file.fileno()

    def sum_of_all(self) -> str:
        return self.sum.result() if self.sum is not None else _sum(self.fd)


def _key(source: Path, st: os.stat_result) -> str:
    told = f"{source.absolute()}\0{st.st_dev}\0{st.st_ino}\0{st.st_size}\0{st.st_mtime_ns}"
    return hashlib.sha256(os.fsencode(told)).hexdigest()[:32]


def _sum(fd: int) -> str:
    found, at = hashlib.sha256(), 0
    while data := os.pread(fd, _PIECE, at):
        found.update(data)
        at += len(data)
    return found.hexdigest()


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
