"""OpenSSH for one connection: the machine's own `sshd -i`, with a host key and settings of this node.

Nothing listens: its input and output are the stream that the agent was given. What a session runs starts in
the node's home, with the environment of the node's programs, as a terminal of `argosy ssh` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import threading

from argosy.agent import joining, processes, programs
from argosy.agent.cgroups import read_text
from argosy.agent.node import user_name
from argosy.agent.orders import Refused, base_env
from argosy.agent.rank import warn

_SBIN = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"
_SFTP = (
    "/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server", "/usr/lib/sftp-server",
)  # fmt: skip
_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/=]+( [\w.@-]+)?")
_making = threading.Lock()

_CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/keys/{key}
AuthenticationMethods publickey
PasswordAuthentication no
ChallengeResponseAuthentication no
UsePAM {pam}
StrictModes no
PermitRootLogin prohibit-password
PermitUserRC no
AllowUsers {user}
AcceptEnv LANG LC_*
PrintMotd no
PrintLastLog no
UseDNS no
PidFile none
LogLevel ERROR
ForceCommand {folder}/session
"""


class Endpoint:
    """The files of this node's sshd, below `<root>/ssh`. Methods block; they raise Refused and OSError."""

    def __init__(
        self,
        root: str,
        name: str,
        home: str,
        shell: str,
        places: str = _SBIN,
        env: dict[str, str] | None = None,
    ) -> None:
        self._folder = root + "/ssh"
        self.log = self._folder + "/log"
        self._name, self._home, self._shell, self._places = name, home, shell, places
        self._env = env  # of what is run; None: of this node's programs

    def ready(self, public_key: str) -> tuple[list[str], str]:
        """The command that serves one connection of who has this key, and the node's host key."""
        if not _KEY.fullmatch(public_key):
            raise Refused("key", "`key` must be one line as in a file `id_ed25519.pub`")
        server = self._find()
        user = user_name()
        if not user:
            raise self._cannot("the user with the number %d has no name there" % os.geteuid())
        with _making:
            os.makedirs(self._folder + "/keys", mode=0o700, exist_ok=True)
            host_key = self._host_key()
            import hashlib

            key = hashlib.sha256(public_key.encode()).hexdigest()[:16]
            _write(self._folder + "/keys/" + key, public_key + "\n", 0o600)
            self._write_session()
            config = self._folder + "/config-" + key
            text = _CONFIG.format(folder=self._folder, key=key, user=user, pam=_pam(user))
            sftp = next((path for path in _SFTP if os.access(path, os.X_OK)), "")
            if sftp:
                text += "Subsystem sftp %s\n" % sftp
            if read_text(config) != text:
                self._make_separation_folder()
                _write(config + ".new", text, 0o600)
                wrong = programs.answer_of([server, "-t", "-f", config + ".new"], timeout_s=10)
                if wrong.strip():
                    raise self._cannot("%s: %s" % (server, wrong.strip().splitlines()[-1]))
                os.replace(config + ".new", config)
        return [server, "-i", "-f", config], host_key

    def _find(self) -> str:
        for folder in self._places.split(":"):
            if os.access(folder + "/sshd", os.X_OK):
                return folder + "/sshd"
        raise self._cannot("OpenSSH's server (sshd) is not installed there")

    def _cannot(self, why: str) -> Refused:
        return Refused("ssh", "%s cannot be opened by ssh: %s" % (self._name, why))

    def _host_key(self) -> str:
        """The public half of this node's own key, which is made once."""
        path = self._folder + "/host_key"
        if not os.path.exists(path):
            maker = programs.find("ssh-keygen") or "/usr/bin/ssh-keygen"
            said = programs.answer_of(
                [maker, "-q", "-t", "ed25519", "-N", "", "-C", "argosy", "-f", path], timeout_s=10
            )
            if not os.path.exists(path):
                raise self._cannot("ssh-keygen made no host key: %s" % (said.strip() or "it is not there"))
        return " ".join(read_text(path + ".pub").split()[:2])

    def _write_session(self) -> None:
        """What every session runs: the user's command or shell, as this node's programs run."""
        lines = ["#!" + ("/bin/sh" if self._env is None else self._shell)]
        if self._env is None:
            env = base_env(self._home)
            env.pop("PYTHONUNBUFFERED", None)
        else:  # secrets stay in memory: the rest of it is read from the process that has them
            env = self._env
            lines += [
                "while IFS= read -r -d '' one; do export \"$one\"; done </proc/%d/environ" % os.getpid()
            ]
        lines += ["export %s=%s" % (key, shlex.quote(env[key])) for key in sorted(env) if key.isidentifier()]
        lines += [
            "export SHELL=" + shlex.quote(self._shell),
            "cd " + shlex.quote(self._home),
            'case "$SSH_ORIGINAL_COMMAND" in',
        ]
        lines += ["%s) exec %s ;;" % (path, path) for path in _SFTP if os.access(path, os.X_OK)]
        lines += ['"") exec "$SHELL" -l ;;', '*) exec "$SHELL" -c "$SSH_ORIGINAL_COMMAND" ;;', "esac", ""]
        path, text = self._folder + "/session", "\n".join(lines)
        if read_text(path) != text:
            _write(path + ".new", text, 0o700)
            os.replace(path + ".new", path)

    def _make_separation_folder(self) -> None:
        """sshd of root wants this folder, which systems make when their own sshd starts."""
        if os.geteuid() == 0:
            try:
                os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
            except OSError:
                pass  # it says so itself


def _pam(user: str) -> str:
    """`yes` for an account whose password is locked: only PAM lets it in by its key."""
    lines = read_text("/etc/shadow").splitlines() if os.geteuid() == 0 else []
    return "yes" if any(line.startswith(user + ":!") for line in lines) else "no"


def _write(path: str, text: str, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def start(argv: list[str], log: str) -> tuple[int, socket.socket]:
    """Start sshd on one end of a pair; its pid and the other end. Raises OSError."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        both = [(theirs.fileno(), 0), (theirs.fileno(), 1)]
        pid = processes.spawn(argv, env, os.devnull, log, append=True, inherit=both)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


async def serve(
    endpoint: Endpoint, reaper: processes.Reaper, key: str,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], upgraded: bytes,
) -> None:  # fmt: skip
    """Carry one connection: first a line with the host key, as JSON, then what ssh and sshd say."""
    loop = asyncio.get_running_loop()
    argv, host_key = await loop.run_in_executor(None, endpoint.ready, key)
    pid, ours = start(argv, endpoint.log)
    ended: asyncio.Future[int] = loop.create_future()

    def note(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    reaper.watch_child(pid, note)
    streams[1].write(upgraded + json.dumps({"host_key": host_key}).encode() + b"\n")
    try:
        await joining.join(streams, await asyncio.open_connection(sock=ours))
    finally:
        if not ended.done():
            # Its sessions are children with groups of their own; they end as their connection does.
            processes.send_signal([pid], signal.SIGTERM)
            await asyncio.wait([ended], timeout=2.0)
        if not ended.done():
            warn("sshd (pid %d) does not end" % pid)
