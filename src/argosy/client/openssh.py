"""What OpenSSH needs to open nodes by name: a key pair, known hosts and entries, in the folder `ssh` of the
state folder. Nothing here is touched before `argosy ssh --setup` has made it."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from argosy.api.clusters import ClusterView

_HEAD = "# Written by argosy; `argosy ssh --setup` writes it anew. Nodes of clusters, by name.\n"
_LEAVING = ("finished", "stopping")
_CONTROL_MAX: Final = (
    60  # bytes of the folder of a control socket: with its name it is an address of a socket
)
_PASSED_ON = ("ARGOSY_HOME", "ARGOSY_SERVER", "ARGOSY_PROJECT")  # never the token: arguments are seen by all


class SshFolder:
    """The files of one state folder."""

    def __init__(self, home: Path) -> None:
        self.path = home / "ssh"
        self.config = self.path / "config"
        self.key = self.path / "id_ed25519"
        self.known_hosts = self.path / "known_hosts"

    def public_key(self) -> str:
        """One line. Raises "wrong-state" before the set-up."""
        try:
            return " ".join(self.key.with_suffix(".pub").read_text("utf-8").split()[:2])
        except OSError:
            raise ArgosyError(
                "wrong-state", f"there is no key in {self.path}", hint="`argosy ssh --setup` makes one"
            ) from None

    def make_key(self) -> None:
        """The key pair, once. Raises "unsupported" without OpenSSH, and OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.key.exists():
            return
        import shutil
        import subprocess

        program = shutil.which("ssh-keygen")
        if program is None:
            raise ArgosyError(
                "unsupported",
                "ssh-keygen is not installed here",
                hint="install OpenSSH's client; `argosy ssh` and `argosy cp` work without it",
            )
        command = [program, "-q", "-t", "ed25519", "-N", "", "-C", "argosy", "-f", str(self.key)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise ArgosyError("unsupported", f"ssh-keygen made no key: {done.stderr.strip()}")

    def know(self, alias: str, host_key: str) -> None:
        """The host key that a node has, as the server says, before ssh asks for it."""
        line = f"{alias} {host_key}"
        with _locked(self.path / "lock"):
            try:
                before = self.known_hosts.read_text("utf-8").splitlines()
            except OSError:
                before = []
            if line not in before:
                kept = [one for one in before if one.partition(" ")[0] != alias]
                write_own(self.known_hosts, "\n".join([*kept, line, ""]))

    def write(self, clusters: Iterable[ClusterView], command: str, project: str) -> None:
        """Entries of these clusters, and no others. Raises OSError."""
        text = render_config(clusters, command, project, self)
        if not self.config.exists() or self.config.read_text("utf-8") != text:
            write_own(self.config, text)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_own(path: Path, text: str) -> None:
    """A file for its owner only, whole or not at all. Raises OSError."""
    new = path.with_name(f".{path.name}-{os.getpid()}")
    new.touch(mode=0o600)
    new.write_text(text, "utf-8")
    new.replace(path)


def host_alias(cluster: str, node: int) -> str:
    """Under which the host key of a node is known. It holds no colon and no blank."""
    return f"argosy.{cluster.replace('/', '.')}.{node}"


def proxy_command(env: Mapping[str, str]) -> str:
    """How OpenSSH comes back to Argosy, with the server that is meant now: past the command line, whose start
    would be most of the time that a log-in takes."""
    import shlex

    given = [f"{name}={env[name]}" for name in _PASSED_ON if env.get(name)]
    words = [sys.executable, "-P", "-m", "argosy.client.ssh_proxy"]  # -P: nothing of the folder we are in
    return shlex.join([*(("env", *given) if given else ()), *words])


def render_config(clusters: Iterable[ClusterView], command: str, project: str, folder: SshFolder) -> str:
    """A file for ssh's `Include`: one `Host` for each node. `project`: in which names need no project."""
    import shlex

    parts = [_HEAD]
    for cluster in sorted(clusters, key=lambda one: (one.project, one.name)):
        if cluster.status in _LEAVING:
            continue
        elsewhere = cluster.project not in ("", project)
        called = f"{cluster.project}/{cluster.name}" if elsewhere else cluster.name
        host = f"{cluster.name}.{cluster.project}" if elsewhere else cluster.name
        for index in range(cluster.num_nodes):
            user = next((node.user for node in cluster.nodes if node.index == index), "")
            where = shlex.join(["--node", str(index), called]).replace("%", "%%")
            lines = [
                f"Host {host if index == 0 else f'{host}-node{index}'}",
                f"  HostKeyAlias {host_alias(called, index)}",
                *([f"  User {user}"] if user else []),
                f"  ProxyCommand {command.replace('%', '%%')} {where}",
                f'  IdentityFile "{folder.key}"',
                "  IdentitiesOnly yes",
                f'  UserKnownHostsFile "{folder.known_hosts}"',
                "  StrictHostKeyChecking yes",
            ]
            parts.append("\n".join(lines) + "\n")
    parts.append(render_sessions(command, folder))
    return "\n".join(parts)


SESSION_SUFFIX: Final = ".argosy"


def render_sessions(command: str, folder: SshFolder) -> str:
    """One entry for all sessions, `NAME.argosy`: those that come later need no other."""
    lines = [
        f"Host *{SESSION_SUFFIX}",
        "  User work",
        f"  ProxyCommand {command.replace('%', '%%')} %h",
        f'  IdentityFile "{folder.key}"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{folder.known_hosts}"',
        "  StrictHostKeyChecking yes",
    ]
    if len(os.fsencode(folder.path)) <= _CONTROL_MAX:
        lines += ["  ControlMaster auto", f'  ControlPath "{folder.path}/%C"', "  ControlPersist 60"]
    return "\n".join(lines) + "\n"


def include_line(config: Path) -> str:
    return f'Include "{config}"'


def includes(text: str, config: Path) -> bool:
    """Whether an ssh configuration includes ours already."""
    return any(
        line.split()[:1] and line.split()[0].lower() == "include" and str(config) in line
        for line in text.splitlines()
    )


def add_include(ssh_config: Path, config: Path) -> None:
    """Our line becomes the first: below a `Host` it would hold for that host only. Raises OSError."""
    ssh_config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = ssh_config.read_text("utf-8") if ssh_config.exists() else ""
    real = ssh_config.resolve()  # people keep it elsewhere and link to it
    write_own(real, f"{include_line(config)}\n\n{before}" if before else f"{include_line(config)}\n")
