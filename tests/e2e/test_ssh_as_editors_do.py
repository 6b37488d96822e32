"""What Remote-SSH of VS Code, JetBrains Gateway and their like do over ssh, with OpenSSH itself.

A server that is brought along and started, its ports and sockets reached from here, files by every protocol:
right bytes and exit codes, into a session's sandbox and into a node of a cluster.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_house import PATIENCE_S, House

from argosy.agent import sandbox
from argosy.testing.ports import free_port

GOOD, GAPS = sandbox.levels()
pytestmark = [
    pytest.mark.skipif(
        not Path("/usr/sbin/sshd").exists() or not shutil.which("scp"),
        reason="OpenSSH's sshd or scp is not installed",
    ),
    pytest.mark.timeout(300),
]
#: A server as editors bring one: it tells its port, answers there and at a socket, and outlives its starter.
SERVER = """\
import os, socketserver, sys, threading
class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())
class Ports(socketserver.ThreadingTCPServer): daemon_threads = True
class Sockets(socketserver.ThreadingUnixStreamServer): daemon_threads = True
path = os.path.expanduser("~/.editor/server.sock")
port, at = Ports(("127.0.0.1", 0), Answer), Sockets(path, Answer)
threading.Thread(target=at.serve_forever, daemon=True).start()
print("listening on", port.server_address[1], flush=True)
port.serve_forever()
"""
#: As an editor types it into `bash -s`: markers around what it wants to know, a file by a heredoc.
INSTALL = """\
set -e
echo "start:4f1"
mkdir -p ~/.editor/bin
cat >~/.editor/run.sh <<'END'
#!/bin/sh
exec python3 "$HOME/.editor/bin/server.py"
END
chmod 755 ~/.editor/run.sh
tar -xzf ~/.editor/server.tar.gz -C ~/.editor/bin
rm -f ~/.editor/server.sock
nohup setsid ~/.editor/run.sh >~/.editor/log 2>&1 </dev/null &
for _ in $(seq 400); do grep -q listening ~/.editor/log && break; sleep 0.05; done
echo "port:$(sed -n 's/listening on //p' ~/.editor/log):"
echo "arch:$(uname -sm):"
echo "end:4f1"
"""


class Person:
    """Somebody with OpenSSH, and a host that they open."""

    def __init__(self, house: House, folder: Path, host: str) -> None:
        self.house, self.host, self.folder = house, host, folder
        home = folder / "person"
        home.mkdir()
        house.run("ssh-config", "--yes", env={"HOME": str(home)})
        self.config = home / ".ssh" / "config"
        self.options = ("-F", str(self.config), "-o", "BatchMode=yes")

    def run(
        self, program: str, *words: str | Path, stdin: str | bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        where = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [program, *map(str, words)], env=self.house.env, cwd=self.folder, capture_output=True,
            timeout=PATIENCE_S, check=False, **where,
        )  # fmt: skip

    def ssh(self, *words: str, stdin: str | bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return self.run("ssh", *self.options, self.host, *words, stdin=stdin)

    @contextlib.contextmanager
    def forwarding(self, *flags: str) -> Iterator[None]:
        """A connection of its own that only forwards, as editors hold one."""
        alone = ("-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes")
        line = ("ssh", *self.options, *alone, *flags, self.host, "echo forwards; cat")
        process = subprocess.Popen(
            line, env=self.house.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == b"forwards\n", (said, process.communicate()[1])
            yield
        finally:
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0


@pytest.fixture(params=[
    pytest.param("session", marks=pytest.mark.skipif("sandbox" not in GOOD, reason=GAPS.get("sandbox", ""))),
    pytest.param("cluster", marks=pytest.mark.nightly),
])  # fmt: skip
def person(request: pytest.FixtureRequest, house: House, tmp_path: Path) -> Iterator[Person]:
    name = house.name("ed")
    if request.param == "session":
        house.run("session", "start", "ssh", "--name", name)
        made = Person(house, tmp_path, f"{name}.argosy")
    else:
        house.run("launch", "-c", name, "--cpus", "0.5", "-y", "--", "true")
        made = Person(house, tmp_path, name)
    yield made
    made.run("ssh", *made.options, "-O", "exit", made.host)
    if request.param == "session":
        house.run("session", "end", "-y", name)


def _asks(stream: socket.socket) -> None:
    """A mebibyte there and back, upper case."""
    stream.settimeout(PATIENCE_S)
    sent = b"abcdefgh" * (1 << 17)
    threading.Thread(target=stream.sendall, args=(sent,), daemon=True).start()
    came = bytearray()
    while len(came) < len(sent):
        data = stream.recv(1 << 16)
        assert data, f"it ended after {len(came)} bytes"
        came += data
    assert bytes(came) == sent.upper()


def _by_socks(port: int, there: int) -> socket.socket:
    """As VS Code connects through `-D`: SOCKS 5, to the other side's own loopback."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    stream.sendall(b"\x05\x01\x00")
    assert stream.recv(2) == b"\x05\x00"
    stream.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + there.to_bytes(2, "big"))
    assert stream.recv(10)[:2] == b"\x05\x00"
    return stream


def test_an_editor_brings_its_server_and_reaches_it(person: Person) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("server.py")
        entry.size, entry.mode = len(SERVER), 0o755
        tar.addfile(entry, io.BytesIO(SERVER.encode()))
    bundle = person.folder / "server.tar.gz"
    bundle.write_bytes(archive.getvalue())
    assert person.ssh("mkdir -p .editor").returncode == 0
    assert person.run("scp", *person.options, "-q", bundle, f"{person.host}:.editor/").returncode == 0
    done = person.ssh("-T", "bash", "-s", stdin=INSTALL)
    said = done.stdout.decode()
    assert done.returncode == 0 and said.startswith("start:4f1\n") and said.endswith("end:4f1\n"), (
        said,
        done.stderr,
    )
    there = int(said.partition("port:")[2].partition(":")[0])
    assert "Linux" in said.partition("arch:")[2]

    socks, local, at = free_port(), free_port(), person.folder / "s"
    home = person.ssh('printf %s "$HOME"').stdout.decode()
    forwards = (
        "-D",
        str(socks),
        "-L",
        f"{local}:127.0.0.1:{there}",
        "-L",
        f"{at}:{home}/.editor/server.sock",
    )
    with person.forwarding(*forwards):
        with _by_socks(socks, there) as stream:
            _asks(stream)
        with socket.create_connection(("127.0.0.1", local)) as stream:
            _asks(stream)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(at))
            _asks(stream)
    with socket.create_server(("127.0.0.1", 0)) as here:
        back = free_port()
        with person.forwarding("-R", f"{back}:127.0.0.1:{here.getsockname()[1]}"):
            asking = f"exec 3<>/dev/tcp/127.0.0.1/{back}; echo hello >&3; read -r line <&3; echo $line"
            answered = threading.Thread(target=_answer_one, args=(here,), daemon=True)
            answered.start()
            assert person.ssh("bash", "-s", stdin=asking).stdout == b"heard hello\n"
    person.run("ssh", *person.options, "-O", "exit", person.host)
    later = person.ssh("bash", "-s", stdin=f"exec 3<>/dev/tcp/127.0.0.1/{there}; echo on >&3; head -n1 <&3")
    assert later.stdout == b"ON\n", "the editor's server outlives its connection"


def _answer_one(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"heard " + peer.recv(100))


def test_files_by_every_protocol_with_right_bytes_and_statuses(person: Person) -> None:
    blob, host = person.folder / "a blob", person.host
    blob.write_bytes(os.urandom(3 << 20))
    tree = person.folder / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "x").write_text("x\n")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    for flags in ((), ("-O",)):  # both protocols of scp
        there = f"{host}:copy{len(flags)}"
        assert person.run("scp", *person.options, "-q", *flags, blob, there).returncode == 0
        back = person.folder / f"back{len(flags)}"
        assert person.run("scp", *person.options, "-q", *flags, there, back).returncode == 0
        assert back.read_bytes() == blob.read_bytes()
        assert person.run("scp", *person.options, "-q", *flags, f"{host}:none", back).returncode == 1
    batch = f'put "{blob}" one\nls -l one\nget one "{person.folder}/got"\nmkdir d\nrename one d/e\n'
    done = person.run("sftp", *person.options, "-q", "-b", "-", host, stdin=batch)
    assert done.returncode == 0, done.stderr
    assert (person.folder / "got").read_bytes() == blob.read_bytes()
    assert person.run("sftp", *person.options, "-q", "-b", "-", host, stdin="get nothing\n").returncode == 1
    if shutil.which("rsync"):
        way = ("-e", "ssh " + " ".join(person.options))
        assert person.run("rsync", "-a", *way, f"{tree}/", f"{host}:tree/").returncode == 0
        assert person.ssh("test -x tree/run.sh && cat tree/deep/x").stdout == b"x\n"
        (tree / "deep" / "x").unlink()
        assert person.run("rsync", "-a", "--delete", *way, f"{tree}/", f"{host}:tree/").returncode == 0
        assert person.ssh("test -e tree/deep/x").returncode == 1
        assert person.run("rsync", "-a", *way, f"{host}:nothing", f"{person.folder}/z").returncode == 23


#: What is run, what is typed into it, how it ends, what it says.
RUNS: tuple[tuple[tuple[str, ...], bytes | None, int, bytes], ...] = (
    (("true",), None, 0, b""),
    (("exit 7",), None, 7, b""),
    (("bash", "-s"), b"cat <<END\none\nEND\nexit 5\n", 5, b"one\n"),
    (("cat",), b"\0\xff\r\n" * 1000, 0, b"\0\xff\r\n" * 1000),
    (("kill -9 $$",), None, 255, b""),
    (("no-such-program",), None, 127, b""),
    (("echo 'two  words' | tr a-z A-Z",), None, 0, b"TWO  WORDS\n"),
)


def test_statuses_and_bytes(person: Person) -> None:
    for words, stdin, status, out in RUNS:
        done = person.ssh(*words, stdin=stdin)
        assert (done.returncode, done.stdout) == (status, out), (words, done.stderr)
