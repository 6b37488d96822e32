"""The fork server and what it forks: processes that have a handler's libraries before an event comes.

    fork server: imports the libraries, waits → fork, a few ms → worker: imports the handler, serves events

The fork server has one thread and no sockets but its own, and loads no more than it needs: what runs in a
copy after a fork (the book-keeping of `threading`, for one) is paid with each of them. A worker gets a socket
for events and a pipe for what it prints. A message is 4 bytes of length, one byte that says what it is, and
its content.
"""

from __future__ import annotations

import _thread
import array
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

TYPE_CHECKING = False  # `typing` is not loaded for its sake
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    Handle = Callable[[Any, Any], Any]

#: What messages are. To a worker: an event. From a worker: the handler is there, it could not be imported, a
#: result, an error, a piece of a streamed result, its end.
EVENT, READY, FAILED, RESULT, ERROR, PIECE, END = b"E", b"K", b"I", b"R", b"X", b"P", b"Z"


def pack(kind: bytes, content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + kind + content


def pack_event(about: dict[str, Any], body: bytes) -> bytes:
    """An event with what its context says."""
    head = json.dumps(about).encode()
    return pack(EVENT, struct.pack("!I", len(head)) + head + body)


def read_message(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """(kind, content); None at the end."""
    head = _exactly(sock, 5)
    if head is None:
        return None
    content = _exactly(sock, struct.unpack("!I", head[:4])[0])
    return None if content is None else (head[4:], content)


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    pieces = []
    while count:
        piece = sock.recv(min(count, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class Context:
    """What a handler gets beside its event; attributes and methods as Lambda has them."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.aws_request_id = about["id"]
        self.invoked_function_arn = about["arn"]
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self.client_context = about.get("client_context")
        self.identity = about.get("identity")
        self.tenant_id = about.get("tenant_id")
        self._deadline_s = about["deadline_ms"] / 1000

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline_s - time.time()) * 1000))

    def log(self, text: object) -> None:
        sys.stdout.write(str(text))


def find_handler(name: str) -> Handle:
    """`module.function`, also `folder/module.function`. Raises what its import raises."""
    place, dot, function = name.rpartition(".")
    if not dot:
        raise ValueError(f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)")
    module = importlib.import_module(place.replace("/", "."))
    found = getattr(module, function, None)
    if found is None:
        raise AttributeError(f"Handler '{function}' missing on module '{place}'")
    return found  # type: ignore[no-any-return]


def prepare(handler: str) -> tuple[Any, Any] | None:
    """(spec, code) of the handler's module, found, read and compiled but not run; None where a plain import
    has to do that: below packages, which would be run, and where something is wrong with it."""
    place = handler.rpartition(".")[0]
    if not place or "." in place or "/" in place or place in sys.modules:
        return None
    try:
        spec = PathFinder.find_spec(place)
        loader: Any = spec.loader if spec is not None else None  # Any: what protocols of loaders leave out
        code = loader.get_code(place) if loader is not None else None
    except Exception:  # the worker's own import tells it
        return None
    return None if code is None else (spec, code)


def begin_module(prepared: tuple[Any, Any]) -> None:
    """Run the code of a prepared module, as its import would."""
    spec, code = prepared
    module = sys.modules[spec.name] = module_from_spec(spec)
    try:
        exec(code, module.__dict__)  # noqa: S102  it is the handler's module
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise


def describe(error: BaseException, *, importing: bool = False) -> bytes:
    """An error as Lambda tells it."""
    kind = type(error).__name__
    text = str(error)
    if importing and isinstance(error, ImportError):
        kind, text = "Runtime.ImportModuleError", f"Unable to import module: {text}"
    elif importing and isinstance(error, AttributeError):
        kind = "Runtime.HandlerNotFound"
    elif importing and isinstance(error, SyntaxError):
        kind = "Runtime.UserCodeSyntaxError"
    elif importing and isinstance(error, ValueError):
        kind = "Runtime.MalformedHandlerName"
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    stack = traceback.format_list(own)
    return json.dumps({"errorMessage": text, "errorType": kind, "stackTrace": stack}).encode()


def work(sock: socket.socket, handler: str, prepared: tuple[Any, Any] | None = None) -> None:
    """Serve events until the socket ends."""
    try:
        if prepared is not None:
            begin_module(prepared)
        handle = find_handler(handler)
    except BaseException as error:  # whatever module code raises, SystemExit too
        print_error()
        sys.stdout.flush()
        sock.sendall(pack(FAILED, describe(error, importing=True)))
        return
    sock.sendall(pack(READY, b""))
    while True:
        message = read_message(sock)
        if message is None:
            return
        length = struct.unpack("!I", message[1][:4])[0]
        about = json.loads(message[1][4 : 4 + length])
        os.environ["_X_AMZN_TRACE_ID"] = about.get("trace", "")
        for answer in run(handle, about, message[1][4 + length :]):
            sock.sendall(answer)


def run(handle: Handle, about: dict[str, Any], body: bytes) -> Iterator[bytes]:
    """The messages that answer one event."""
    try:
        result = handle(json.loads(body or b"{}"), Context(about))
        if hasattr(result, "__next__"):
            for piece in result:
                data = piece.encode() if isinstance(piece, str) else bytes(piece)
                if data:
                    yield pack(PIECE, data)
            last = pack(END, b"")
        else:
            last = pack(RESULT, marshal(result))
    except Exception as error:  # whatever a handler raises is its answer
        print(f"[ERROR] {type(error).__name__}: {error}", file=sys.stderr)
        print_error()
        last = pack(ERROR, describe(error))
    sys.stdout.flush()
    sys.stderr.flush()
    yield last


def print_error() -> None:
    import traceback

    traceback.print_exc()


class MarshalError(Exception):
    """The result is no JSON."""


MarshalError.__name__ = "Runtime.MarshalError"


def marshal(result: object) -> bytes:
    if isinstance(result, bytes):
        result = result.decode("utf-8", "replace")
    try:
        return json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError) as error:
        raise MarshalError(f"Unable to marshal response: {error}") from None


# --- the fork server -------------------------------------------------------------------------------


def libraries_of(handler: str, root: str) -> list[str]:
    """What the handler imports from outside its own folder, found out by a process that imports it once."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        names: list[str] = []
        try:
            silent = os.open(os.devnull, os.O_RDWR)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            before = set(sys.modules)
            find_handler(handler)
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if not file.startswith(root + os.sep):
                    names.append(name)
        except BaseException:  # its errors are told when a worker meets them
            names = []
        theirs.sendall(pack(RESULT, json.dumps(sorted(names)).encode()))
        os._exit(0)
    theirs.close()
    message = read_message(ours)
    ours.close()
    os.waitpid(pid, 0)
    return json.loads(message[1]) if message else []


def serve(control: socket.socket, handler: str, root: str, preload: bool) -> None:
    """Fork a worker for each pair of descriptors that comes; tell its pid, and how each one ended."""
    sys.path.insert(0, root)
    if preload:
        try:
            find_handler(handler)
        except BaseException:  # the first worker tells it
            sys.modules.pop(handler.rpartition(".")[0].replace("/", "."), None)
    else:
        for name in libraries_of(handler, root):
            try:
                importlib.import_module(name)
            except Exception:  # it may want to be imported by another first
                continue
    prepared = prepare(handler)
    forks = _thread._count() == 0
    gc.collect()
    gc.freeze()

    def reap(*_: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            control.sendall(struct.pack("!cIi", b"D", pid, status))

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control.sendall(struct.pack("!cIi", b"Y", os.getpid(), 0))
    while True:
        descriptors = array.array("i", [0, 0])
        data, more, _, _ = control.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize * 2))
        if not data:
            os._exit(0)
        descriptors = array.array("i")
        descriptors.frombytes(more[0][2][: 2 * descriptors.itemsize])
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            if not forks:
                _begin_anew(descriptors[0], descriptors[1], handler, root)
            _become_worker(control, descriptors[0], descriptors[1], handler, prepared)
        control.sendall(struct.pack("!cIi", b"F", pid, 0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for descriptor in descriptors:
            os.close(descriptor)


def _leave(log: int) -> None:
    """Not the fork server's any more: its signals, its session, its output."""
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _begin_anew(events: int, log: int, handler: str, root: str) -> NoReturn:
    """Something started a thread on import: a forked copy could hang, so it is an interpreter of its own."""
    _leave(log)
    os.set_inheritable(events, True)
    os.execv(sys.executable, [sys.executable, sys.argv[0], "--worker", str(events), handler, root])


def _become_worker(
    control: socket.socket, events: int, log: int, handler: str, prepared: tuple[Any, Any] | None
) -> NoReturn:
    _leave(log)
    control.close()
    dice = sys.modules.get("numpy.random")  # not `numpy.random`: that would import it
    if dice is not None:
        dice.seed()
    try:
        work(socket.socket(fileno=events), handler, prepared)
        sys.stdout.flush()
    except BaseException:  # the socket broke, or a handler ended itself
        print_error()
        os._exit(1)
    os._exit(0)


def worker_main(events: int, handler: str, root: str) -> None:
    """A worker in an interpreter of its own."""
    sys.path.insert(0, root)
    work(socket.socket(fileno=events), handler)


def zygote_main(control: int, handler: str, root: str, preload: bool) -> None:
    """The fork server in an interpreter of its own."""
    serve(socket.socket(fileno=control), handler, root, preload)
