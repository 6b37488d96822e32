"""Two servers over one PostgreSQL: any request anywhere, streams too; one decides; out is out at both."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from two_servers import PATIENCE_S, Pair, Server, run, wait
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from argosy.model.errors import ArgosyError
from argosy.model.resources import Bound, Resources
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.testing.postgres_server import PostgresServer, find_postgres

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

APP = """\
title = "Page"
listens = "port"
ready = "/"
command = '''
cat >"$ARGOSY_APP_DIR/app.py" <<'END'
import http.server, os

class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("upgrade"):  # whatever comes goes back
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "upgrade")
            self.end_headers()
            while data := self.rfile.read1(65536):
                self.wfile.write(data)
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("content-length", "10")
        self.end_headers()
        self.wfile.write(b"it is open")

port = int(os.environ["ARGOSY_APP_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Page).serve_forever()
END
exec python3 "$ARGOSY_APP_DIR/app.py"
'''
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    binaries = find_postgres()
    if binaries is None:
        if os.environ.get("ARGOSY_REQUIRE_POSTGRES"):
            pytest.fail("ARGOSY_REQUIRE_POSTGRES is set and there is no PostgreSQL")
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    postgres = PostgresServer(binaries)
    made = Pair(postgres)
    folder = made.root / "work"
    folder.mkdir()
    (folder / "data.txt").write_text("came along\n")
    made.run("launch", "-y", "-d", "-c", "box", "--workdir", str(folder), "--", "cat data.txt; seq 1 2000")
    yield made
    made.close()
    postgres.stop()


def output(server: Server, job_id: str, *, follow: bool = True) -> str:
    with server.client() as client:
        pieces = client.logs(job_id, follow=follow)
        return b"".join(piece.data for piece in pieces if piece.data).decode()


def job_id(server: Server, cluster: str, number: int) -> str:
    with server.client() as client:
        return next(each.id for each in client.queue(cluster).jobs if each.number == number)


def test_files_jobs_and_their_output_are_at_both(pair: Pair) -> None:
    """The node is on the machine of `a`, which alone reaches it."""
    wanted = "came along\n" + "".join(f"{n}\n" for n in range(1, 2001))
    job = job_id(pair.b, "box", 1)
    for server in pair.servers:
        assert output(server, job) == wanted, server.name
    for turn in range(2):  # one connection each: at `a` and at `b`
        assert (
            pair.run("ssh", "box", "--", f"cat workdir/data.txt; echo {turn}").stdout
            == f"came along\n{turn}\n"
        )
    blob = pair.root / "blob"
    blob.write_bytes(os.urandom(3 << 20))
    for turn in range(2):
        pair.run("cp", str(blob), f"box:blob{turn}")
        pair.run("cp", f"box:blob{turn}", f"{blob}{turn}")
        assert (pair.root / f"blob{turn}").read_bytes() == blob.read_bytes()


@pytest.mark.nightly
def test_what_one_stored_before_the_other_came_is_read_at_the_other(pair: Pair) -> None:
    wait("the job is over", lambda: output(pair.a, job_id(pair.a, "box", 1)), pair.logs)
    job = job_id(pair.a, "box", 1)
    pair.b.stop()
    for path in (pair.b.state / "logs").rglob("*.log"):
        path.unlink()
    for path in (pair.b.state / "trees").iterdir():
        path.unlink()
    pair.b.start()
    assert output(pair.b, job, follow=False) == output(pair.a, job, follow=False) != ""


def test_a_reader_goes_on_at_the_other_server(pair: Pair) -> None:
    """The server that it reads from is killed in the middle. Nothing is lost, and nothing comes twice; the
    machine where the job runs is that of the killed server, so the rest is there when it is back."""
    text = "for i in $(seq 1 60); do echo line $i; sleep 0.05; done"
    with pair.a.client() as client:
        number = client.queue("box").jobs[0].number + 1
    pair.run("exec", "-d", "box", "--", text)
    job = job_id(pair.a, "box", number)
    seen: list[bytes] = []
    ended = threading.Event()

    def read() -> None:
        with pair.client() as client:
            for piece in client.logs(job, follow=True):
                seen.append(piece.data or b"")
        ended.set()

    for _ in range(2):  # one reader at each of them
        threading.Thread(target=read, daemon=True).start()
    wait("it prints", lambda: b"line 10\n" in b"".join(seen), pair.logs)
    pair.a.send(signal.SIGKILL)
    began_s = time.monotonic()
    wait("b decides", lambda: pair.decider() is pair.b, pair.logs)
    print(f"b decides {time.monotonic() - began_s:.1f} s after a was killed")
    pair.a.start()
    assert ended.wait(PATIENCE_S), pair.logs()
    wait("both have ended", lambda: b"".join(seen).count(b"line 60\n") == 2, pair.logs)
    lines = b"".join(seen).decode().splitlines()
    assert sorted(lines) == sorted([f"line {n}" for n in range(1, 61)] * 2)
    assert output(pair.b, job) == "".join(f"line {n}\n" for n in range(1, 61))


@pytest.mark.nightly
def test_a_leader_that_was_paused_writes_nothing_when_it_wakes_up(pair: Pair) -> None:
    """It is `b`: what runs is on the machine of `a`."""
    wait("box is up", lambda: _status(pair, "box") == "running", pair.logs)
    if pair.decider() is not pair.b:
        pair.a.stop()
        wait("b decides", lambda: pair.decider() is pair.b, pair.logs)
        pair.a.start()
    pair.b.send(signal.SIGSTOP)
    try:
        wait("a decides", lambda: pair.decider() is pair.a, pair.logs)
        with pair.a.client() as client:
            number = client.queue("box").jobs[0].number + 1
        run(pair.a.env, "exec", "-d", "box", "--", "echo decided by a", log=pair.logs)
        job = job_id(pair.a, "box", number)
        assert output(pair.a, job) == "decided by a\n"
    finally:
        pair.b.send(signal.SIGCONT)
    assert output(pair.b, job) == "decided by a\n"
    assert pair.decider() is pair.a


def _status(pair: Pair, name: str) -> str:
    with pair.a.client() as client:
        return next((str(each.status) for each in client.status().clusters if each.name == name), "")


class Person:
    """Somebody with an account, and ways to be in at both servers."""

    def __init__(self, pair: Pair, name: str) -> None:
        self.pair, self.name, self.password = pair, name, "correct horse battery staple"
        self.ask("POST", "/users", {"name": name, "password": self.password})
        self.ask("POST", "/members", {"user": name, "role": "operator", "project": "default"})
        login = {"user": name, "password": self.password, "client": "cli"}
        self.signing_in = login | {"client": "browser"}
        self.token: str = self.ask("POST", "/login", login)["token"]

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        """Through the balancer; as the administrator, unless a token is given."""
        status, answer = request(self.pair.balancer.port, method, path, body, token or self.pair.token)
        assert status == 200, answer
        return answer

    def socket(self, stack: contextlib.ExitStack, server: Server, path: str) -> ClientConnection:
        opened = connect(
            f"ws://127.0.0.1:{server.port}/v1{path}",
            additional_headers={"authorization": f"Bearer {self.token}"},
            compression=None,
            max_size=None,
        )
        return stack.enter_context(opened)


def request(port: int, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"authorization": f"Bearer {token}"}
    connection.request(method, f"/v1{path}", None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, json.loads(text)


class Signed:
    """Somebody's browser that signed in through the balancer."""

    def __init__(self, pair: Pair, person: Person) -> None:
        answer = self._ask(pair.balancer.port, "POST", "/login", person.signing_in)
        self.cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        assert self.cookie.startswith("__Host-argosy=")

    def _ask(self, port: int, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("localhost", port, timeout=60)
        fields = {"x-argosy-api": "1", "sec-fetch-site": "same-origin", "cookie": getattr(self, "cookie", "")}
        connection.request(method, f"/v1{path}", None if body is None else json.dumps(body), fields)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply

    def get(self, server: Server) -> int:
        return self._ask(server.port, "GET", "/whoami").status

    def leave(self, pair: Pair) -> None:
        assert self._ask(pair.balancer.port, "POST", "/logout").status == 200

    def socket(self, stack: contextlib.ExitStack, server: Server, path: str) -> ClientConnection:
        """As a page of the server opens it."""
        origin = f"http://localhost:{server.port}"
        headers = {"cookie": self.cookie, "origin": origin}
        url = f"ws://localhost:{server.port}/v1{path}"
        return stack.enter_context(connect(url, additional_headers=headers, compression=None, max_size=None))


class OpenApp:
    """A browser's connection to the app at one server, which stays open."""

    def __init__(self, port: int, cookie: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._cookie = cookie

    def get(self) -> int:
        headers = {"host": f"page--board.localhost:{self._connection.port}", "cookie": self._cookie}
        self._connection.request("GET", "/", headers=headers)
        reply = self._connection.getresponse()
        reply.read()
        return reply.status

    def is_cut(self) -> bool:
        """Whether the server has closed the connection."""
        sock = self._connection.sock
        sock.setblocking(False)
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            sock.setblocking(True)


@pytest.fixture(scope="module")
def board(pair: Pair) -> Iterator[None]:
    """A session with an app."""
    for server in pair.servers:
        (server.state / "apps").mkdir(exist_ok=True)
        (server.state / "apps" / "page.toml").write_text(APP)
    pair.run("session", "start", "page", "--name", "board", "--isolation", "process")
    yield
    pair.run("session", "end", "-y", "board", ok=False)


def enter(pair: Pair, person: Person) -> str:
    """The cookie of the app: the code from one server, used at the other."""
    reply = person.ask("POST", "/sessions/board/open", {}, person.token)
    code = reply["code"]
    connection = http.client.HTTPConnection("127.0.0.1", pair.balancer.port, timeout=60)
    host = f"page--board.localhost:{pair.balancer.port}"
    headers = {"host": host, "content-type": "application/x-www-form-urlencoded", "origin": f"http://{host}"}
    connection.request("POST", "/.argosy/enter", urlencode({"code": code, "next": "/"}), headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 303, body
    return (answer.getheader("set-cookie") or "").partition(";")[0]


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    "how", ["disable", *(pytest.param(how, marks=pytest.mark.nightly) for how in ("revoke", "password"))]
)
def test_whoever_is_put_out_is_out_at_both_within_two_seconds(
    pair: Pair, board: None, how: str, closing: contextlib.ExitStack
) -> None:
    """Token, cookie of a browser, terminal and ssh of a node and of a session, app of a session."""
    person = Person(pair, f"ann-{how}")
    person.ask("POST", "/members", {"user": person.name, "role": "admin", "project": "default"})
    made = person.ask("POST", "/tokens", {"name": f"t-{how}"}, token=person.token)
    token: str = made["secret"]
    paths: tuple[str, ...] = ("/clusters/box/shell", "/sessions/board/shell")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x"
    if os.path.exists("/usr/sbin/sshd"):
        paths += tuple(
            f"{each}/ssh?{urlencode({'key': key})}" for each in ("/clusters/box", "/sessions/board")
        )
    person.token, signed_in = token, person.token
    sockets = [person.socket(closing, server, path) for server in pair.servers for path in paths]
    browser = Signed(pair, person)
    assert [browser.get(server) for server in pair.servers] == [200, 200]
    sockets += [browser.socket(closing, server, "/clusters/box/shell") for server in pair.servers]
    cookie = enter(pair, person)
    apps = [OpenApp(server.port, cookie) for server in pair.servers]
    assert [app.get() for app in apps] == [200, 200]

    if how == "revoke":
        person.ask("DELETE", f"/tokens/t-{how}", token=signed_in)
        browser.leave(pair)
    elif how == "disable":
        person.ask("POST", f"/users/{person.name}", {"is_disabled": True})
    else:
        person.ask("POST", "/password", {"password": "another long password", "user": person.name})
    began_s = time.monotonic()
    late: list[str] = []

    def gone(what: str, seen: Callable[[], bool]) -> None:
        wait(f"{what} is over", seen, pair.logs)
        if time.monotonic() - began_s > 2.0 * _slowness():
            late.append(f"{what}: {time.monotonic() - began_s:.2f} s")

    for server in pair.servers:
        gone("token", lambda server=server: request(server.port, "GET", "/whoami", None, token)[0] == 401)  # type: ignore[misc]
        gone("cookie", lambda server=server: browser.get(server) == 401)  # type: ignore[misc]
    for each in sockets:
        gone("socket", lambda each=each: _is_closed(each))  # type: ignore[misc]
    for app in apps:
        gone("app", app.is_cut)
    print(f"{how}: everything was over after {time.monotonic() - began_s:.2f} s")
    assert late == []
    for server in pair.servers:
        assert OpenApp(server.port, cookie).get() in (401, 403)


def test_web_sockets_ports_and_ssh_of_a_session_open_at_both(pair: Pair, board: None) -> None:
    """The session is on the machine of `a`. Bytes go round through each server: by a WebSocket of its app, by
    one of its ports, and by OpenSSH."""
    person = Person(pair, "streams")
    cookie, blob = enter(pair, person), os.urandom(1 << 20)
    for server in pair.servers:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
            host = f"page--board.localhost:{server.port}"
            fields = f"host: {host}\r\norigin: http://{host}\r\ncookie: {cookie}\r\n"
            upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            raw.sendall(f"GET /talk HTTP/1.1\r\n{fields}{upgrade}\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += raw.recv(1)
            assert head.startswith(b"HTTP/1.1 101 "), head
            sending = threading.Thread(target=raw.sendall, args=(blob,))
            sending.start()
            back = b""
            while len(back) < len(blob):
                back += raw.recv(1 << 16)
            sending.join()
            assert back == blob, server.name
    port = pair.run("session", "open", "board", "--", "echo $ARGOSY_APP_PORT").stdout.strip()
    with contextlib.ExitStack() as stack:
        for server in pair.servers:
            stream = person.socket(stack, server, f"/sessions/board/forward?port={port}")
            stream.send(b"GET / HTTP/1.0\r\n\r\n")
            said = b""
            while b"it is open" not in said:
                piece = stream.recv(timeout=PATIENCE_S)
                said += piece if isinstance(piece, bytes) else b""
    if os.path.exists("/usr/sbin/sshd"):
        pair.run("ssh-config", "--yes")
        config = str(pair.root / "laptop" / ".ssh" / "config")
        for turn in range(2):  # one connection each: at `a` and at `b`
            alone = ("-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none")
            done = subprocess.run(
                ["ssh", "-F", config, *alone, "root@board.argosy", f"echo by ssh {turn}; exit 7"],
                env=pair.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=PATIENCE_S, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (7, f"by ssh {turn}\n"), done.stderr


def test_buckets_and_folders_of_one_server_are_used_through_both(pair: Pair) -> None:
    """They lie on the disk of one; the balancer takes each connection to the other one than the last."""
    blob, back = pair.root / "large", pair.root / "back"
    blob.write_bytes(os.urandom(5 << 20))
    pair.run("storage", "create", "two")
    pair.run("storage", "cp", str(blob), "argosy://two/blob")
    pair.run("folder", "create", "shared")
    pair.run("folder", "upload", "shared", str(blob), "blob")
    for server in pair.servers:
        for words in (("storage", "cp", "argosy://two/blob"), ("folder", "download", "shared/blob")):
            run(server.env, *words, str(back), log=pair.logs)
            assert back.read_bytes() == blob.read_bytes(), (server.name, words)
            back.unlink()
        assert request(server.port, "GET", "/buckets", None, pair.token)[1]["buckets"][0]["bytes"] == 5 << 20
    kept = [each for each in pair.servers if (each.state / "objects" / "index.db").exists()]
    assert len(kept) == len([each for each in pair.servers if (each.state / "folders").exists()]) == 1
    wait("who keeps them decides", lambda: pair.decider() is kept[0], pair.logs)


@pytest.mark.nightly
def test_a_launch_reads_a_folder_of_the_other_server(pair: Pair) -> None:
    texts = pair.root / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a file of a folder\n")
    pair.run("folder", "create", "read")
    pair.run("folder", "upload", "read", str(texts))
    task = pair.root / "reads.yaml"
    task.write_text("volumes: {/tmp/argosy-read: 'read:ro'}\nrun: cat /tmp/argosy-read/a.txt\n")
    for server in pair.servers:
        done = run(server.env, "launch", "-y", "-c", f"reads-{server.name}", str(task), log=pair.logs)
        assert "a file of a folder" in done.stdout, done.stdout
        pair.run("down", "-y", f"reads-{server.name}")


@pytest.mark.nightly
def test_a_limit_holds_for_jobs_that_come_to_both_at_the_same_time(pair: Pair) -> None:
    """Sixteen that wait for a file, eight at each server at once; the queue takes five."""
    gate, told = pair.root / "gate", list[str]()
    limit = ("--limit", "jobs=5", "--over-limit", "refuse", "-y")
    run(pair.a.env, "quota", "set", "lab", *limit, log=pair.logs)
    task = Task(
        run=f"while [ ! -e {gate} ]; do sleep 0.2; done", scheduling=Scheduling(queue="lab"),
        resources=(Resources(cpus=Bound(100)),),
    )  # fmt: skip

    def submit(server: Server) -> None:
        with server.client() as client:
            for _ in range(8):
                try:
                    client.jobs_launch([task])
                    told.append("taken")
                except ArgosyError as error:
                    told.append(error.what)

    threads = [threading.Thread(target=submit, args=(each,)) for each in pair.servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pair.b.client() as client:
        client.cancel(None, all=True)
    assert told.count("taken") == 5, told
    assert {each.partition(", over by")[0] for each in told} == {"taken", "queue lab: 5 + 1 > 5 jobs"}


def _slowness() -> float:
    """How busy this machine is: what takes two seconds on an idle one may take longer."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _is_closed(opened: ClientConnection) -> bool:
    with contextlib.suppress(TimeoutError):
        try:
            while True:
                opened.recv(timeout=0.01)
        except ConnectionClosed:
            return True
    return False
