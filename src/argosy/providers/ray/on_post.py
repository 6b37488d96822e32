"""Runs in a Ray cluster, beside the driver of a claim: carries bytes between the agents of its nodes and a
server that reaches nothing but Ray's dashboard.

To the nodes they go as mail: numbered packages in Ray's store, which are taken out of it here. From the nodes
they go into a file in Ray's own folder of logs, which the dashboard streams while it grows. One such file
follows another, and what the server has read is removed. Both directions are one TLS connection, whose
certificate came with the order: neither the store nor a log tells what passes. Standard library only, Python
3.8 or newer; the server uses `Wire` and `split`, too.
"""

from __future__ import annotations

import os
import queue
import ssl
import struct
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Tuple

    Frame = Tuple[int, int, int, bytes]  # kind, pipe, node, data

MAGIC = b"argosy post 1\n"  # the first bytes of every file
SIZE = struct.Struct(">I")  # before each piece in a file; 0: the next file goes on
HEAD = struct.Struct(">BIHI")  # kind, pipe, node, size of the data that follows
DATA, END, TAKEN, STILL, BYE = range(5)  # TAKEN: files before number `pipe` have been read
FILE_BYTES = 8 << 20
AHEAD = 4  # so many files may be there that are not read
STILL_S, SILENCE_S = 10.0, 90.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.005, 0.1
_PIECE_BYTES = 64 << 10
_PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN, which Python 3.8 does not name


class Wire:
    """One end of the connection: frames in, bytes to carry out, and back. Not for several threads at once."""

    def __init__(self, context: ssl.SSLContext, accepts: bool) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=accepts)
        self._is_ready = False
        self._early = bytearray()  # what is said before the two know each other
        self._rest = bytearray()
        if not accepts:
            self.heard(b"")

    def heard(self, data: bytes) -> list[Frame]:
        """What the next bytes of the other end say. Raises ssl.SSLError, ValueError."""
        self._in.write(data)
        try:
            if not self._is_ready:
                self._tls.do_handshake()
                self._is_ready = True
                self._write(bytes(self._early))
            while True:
                piece = self._tls.read(_PIECE_BYTES)
                if not piece:
                    break
                self._rest += piece
        except ssl.SSLWantReadError:
            pass  # that was all
        return list(self._frames())

    def _frames(self) -> Iterator[Frame]:
        at = 0
        while len(self._rest) - at >= HEAD.size:
            kind, pipe, node, size = HEAD.unpack_from(self._rest, at)
            if kind > BYE:
                raise ValueError("a frame of kind %d" % kind)
            if len(self._rest) - at < HEAD.size + size:
                break
            at += HEAD.size + size
            yield kind, pipe, node, bytes(self._rest[at - size : at])
        del self._rest[:at]

    def say(self, kind: int, pipe: int = 0, node: int = 0, data: bytes = b"") -> None:
        text = HEAD.pack(kind, pipe, node, len(data)) + data
        if self._is_ready:
            self._write(text)
        else:
            self._early += text

    def _write(self, text: bytes) -> None:
        while text:
            text = text[self._tls.write(text) :]

    @property
    def waiting(self) -> int:
        """Bytes that are to be carried."""
        return self._out.pending

    def take(self) -> bytes:
        """The bytes to carry to the other end."""
        return self._out.read()


def split(data: bytearray) -> Iterator[bytes]:
    """The pieces of a file after its first line, as far as they have come, taken out of `data`; b"" at its
    end."""
    while len(data) >= SIZE.size:
        size = SIZE.unpack_from(data)[0]
        if len(data) < SIZE.size + size:
            return
        piece = bytes(data[SIZE.size : SIZE.size + size])
        del data[: SIZE.size + size]
        yield piece


class Post:
    """One server's way to the nodes of a claim, for as long as the server says something.

    Args:
        order: {"id", "ca"}, as the server sent it.
        folder: Ray's own for logs.
        take: takes the next mail out of the store, by the post and its number; None: there is none.
        call: a method of a node's actor, by the node's index.
    """

    def __init__(
        self,
        order: dict[str, str],
        folder: str,
        take: Callable[[str, int], bytes | None],
        call: Callable[..., Any],
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # it is who has the key of this certificate
        context.load_verify_locations(cadata=order["ca"])
        context.verify_flags |= _PARTIAL_CHAIN
        self._id, self._folder, self._take, self._call = order["id"], folder, take, call
        self._wire = Wire(context, accepts=False)
        self._lock = threading.Lock()
        self._number = self._size = self._taken = self._next = 0
        self._file = self._new_file()
        self._quiet_s = 0.0  # that nothing was said, here
        self._pipes: dict[int, _Pipe] = {}
        self.is_over = False
        with self._lock:
            self._wire.say(STILL)
            self._flush()
        threading.Thread(target=self._run, daemon=True).start()

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, "argosy-%s.%d" % (self._id, number))

    def _new_file(self) -> Any:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        path = self._path(self._number)
        file = os.fdopen(os.open(path + ".new", flags, 0o600), "wb", buffering=0)
        file.write(MAGIC)
        os.rename(path + ".new", path)
        self._size = 0
        return file

    def _run(self) -> None:
        try:
            while self._listen():
                pass
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            print("argosy: the post of a server ended: %s" % error, flush=True)
        finally:
            self.end()

    def _listen(self) -> bool:
        """The next mail. False: it was the last one."""
        pause_s, silence_s = _FIRST_LOOK_S, 0.0
        while True:
            mail = self._take(self._id, self._next)
            if mail is not None:
                break
            if self.is_over or silence_s > SILENCE_S:
                return False
            if self._quiet_s > STILL_S:
                self.say(STILL)
            time.sleep(pause_s)
            silence_s += pause_s
            self._quiet_s += pause_s
            pause_s = min(_LAST_LOOK_S, pause_s * 1.2)
        self._next += 1
        with self._lock:
            frames = self._wire.heard(mail)
            self._flush()
        for kind, pipe, node, data in frames:
            if kind == BYE:
                return False
            if kind == TAKEN:
                self._read_up_to(pipe)
            elif kind in (DATA, END):
                self._to_node(kind, pipe, node, data)
        return True

    def _read_up_to(self, number: int) -> None:
        for each in range(self._taken, number):
            _remove(self._path(each))
        self._taken = max(self._taken, number)

    def _to_node(self, kind: int, pipe: int, node: int, data: bytes) -> None:
        known = self._pipes.get(pipe)
        if kind == END:
            if known is not None:
                known.given.put(b"")
            return
        if known is None:
            known = self._pipes[pipe] = _Pipe(self, pipe, node, self._call, "%s.%d" % (self._id, pipe))
        if data:  # the first one says only that it begins
            known.given.put(data)

    def forget(self, pipe: int) -> None:
        self._pipes.pop(pipe, None)

    def say(self, kind: int, pipe: int = 0, node: int = 0, data: bytes = b"") -> None:
        """Waits while the server is far behind."""
        while kind == DATA and self._number - self._taken >= AHEAD and not self.is_over:
            time.sleep(0.01)
        with self._lock:
            if not self.is_over:
                self._wire.say(kind, pipe, node, data)
                self._flush()

    def _flush(self) -> None:
        data = self._wire.take()
        if not data:
            return
        self._quiet_s = 0.0
        self._file.write(SIZE.pack(len(data)) + data)
        self._size += len(data)
        if self._size > FILE_BYTES:
            self._number += 1
            last, self._file = self._file, self._new_file()
            last.write(SIZE.pack(0))
            last.close()

    def end(self) -> None:
        """Its files are removed, and what it carries ends."""
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
            try:
                self._wire.say(BYE)  # who reads the file reads it to its end, although it is removed
                self._flush()
                self._file.close()
            except (OSError, ValueError):
                pass  # the server sees that nothing comes any more
            for number in range(self._taken, self._number + 1):
                _remove(self._path(number))
        for pipe in list(self._pipes.values()):
            pipe.given.put(b"")
        for number in range(max(0, self._next - 2), self._next + 2):  # one that was sent twice
            self._take(self._id, number)


class _Pipe:
    """Bytes to and from one run of `connect` at a node."""

    def __init__(self, post: Post, number: int, node: int, call: Callable[..., Any], key: str) -> None:
        # Without a limit: what is under way is bounded by the windows of its streams.
        self.given: queue.Queue[bytes] = queue.Queue()
        self._post, self._number, self._node, self._call, self._key = post, number, node, call, key
        threading.Thread(target=self._down, daemon=True).start()

    def _down(self) -> None:
        try:
            self._call(self._node, "join", self._key)
            threading.Thread(target=self._up, daemon=True).start()
            while True:
                data = self._call(self._node, "receive", self._key)
                if not data:
                    break
                self._post.say(DATA, self._number, self._node, data)
        except Exception as error:  # whatever it is, this pipe is over
            print("node %d is not reached: %s" % (self._node, type(error).__name__), flush=True)
        self._post.forget(self._number)
        self._post.say(END, self._number, self._node)

    def _up(self) -> None:
        try:
            while True:
                data = self.given.get()
                self._call(self._node, "send", self._key, data)
                if not data:
                    return
        except Exception:  # as above: the other direction tells it
            return


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it is not there any more
