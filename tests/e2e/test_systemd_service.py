"""docs/deploy/argosy.service under a real systemd, which is process 1 of a container: installed as the page
says, started, killed, reloaded, upgraded and stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_podman import REPO, Engine, engine, install_argosy, make_system

DEPLOY = REPO / "docs" / "deploy"
PATIENCE_S = 180.0
SYSTEMD = "/lib/systemd/systemd"
AS_ARGOSY = ("--user=argosy", "--env=ARGOSY_HOME=/var/lib/argosy", "--env=NO_COLOR=1")

pytestmark = pytest.mark.nightly


class Machine:
    """A machine with systemd on which Argosy is a service."""

    def __init__(self, podman: Engine, root: Path) -> None:
        self._podman, self.root = podman, root
        volumes = [*make_system(root), *install_argosy(root)]
        # systemd makes mounts for what `ProtectSystem` says.
        made = podman.podman(
            "run", "--detach", "--name=machine", "--systemd=always", "--network=none", "--cap-add=SYS_ADMIN",
            *volumes, "--rootfs", str(root), SYSTEMD, "--log-target=console", ok=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"SYSTEMD IS NOT STARTED HERE: {made.stderr.strip()[-300:]}")
        self.wait("systemd is up", lambda: "running" in self.said("systemctl", "is-system-running", ok=False))

    def run(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self._podman.podman("exec", "machine", *words, ok=ok)

    def said(self, *words: str, ok: bool = True) -> str:
        return self.run(*words, ok=ok).stdout.strip()

    def argosy(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """As the user of the service, who owns its socket."""
        return self._podman.podman("exec", *AS_ARGOSY, "machine", "/opt/argosy/bin/argosy", *words, ok=ok)

    def fact(self, name: str) -> str:
        return self.said("systemctl", "show", "--value", f"--property={name}", "argosy")

    def log(self) -> str:
        journal = self.said("journalctl", "--no-pager", "--unit=argosy", "--lines=40", ok=False)
        return f"{journal}\n{self.said('tail', '-n40', '/var/lib/argosy/server.log', ok=False)}"

    def health(self) -> dict[str, object]:
        """What the server answers over its encrypted port; {} while it does not."""
        ask = (
            "import ssl,urllib.request as r; c=ssl._create_unverified_context();"
            "print(r.urlopen(r.Request('https://127.0.0.1/v1/health',headers={'Host':'argosy.example'}),"
            "context=c,timeout=20).read().decode())"
        )
        done = self.run("/opt/argosy/bin/python", "-I", "-c", ask, ok=False)
        found: dict[str, object] = json.loads(done.stdout) if done.returncode == 0 else {}
        return found

    def wait(self, what: str, is_so: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < until, f"not within {PATIENCE_S} s: {what}\n{self.log()}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if not Path(SYSTEMD).exists():
        pytest.skip("SYSTEMD IS NOT STARTED: apt-get install systemd")
    folder = tmp_path_factory.mktemp("systemd")
    with engine(folder) as podman:
        here = Machine(podman, folder / "root")
        # As docs/deploy.md says, but for the certificate of an authority: there is none to ask.
        here.run("useradd", "--system", "--home-dir", "/var/lib/argosy", "argosy")
        (here.root / "etc/argosy").mkdir()
        shutil.copy(DEPLOY / "server.env", here.root / "etc/argosy/server.env")
        (here.root / "etc/argosy/server.env").chmod(0o600)
        shutil.copy(DEPLOY / "argosy.service", here.root / "etc/systemd/system/argosy.service")
        here.run("systemctl", "daemon-reload")
        here.run("systemctl", "enable", "--now", "argosy")
        here.wait("the server answers", here.health)
        yield here


def test_it_runs_as_its_user_and_makes_the_first_account(machine: Machine) -> None:
    assert (machine.fact("ActiveState"), machine.fact("SubState")) == ("active", "running"), machine.log()
    assert machine.said("systemctl", "is-enabled", "argosy") == "enabled"
    status = machine.said("cat", f"/proc/{machine.fact('MainPID')}/status")
    uid = machine.said("id", "-u", "argosy")
    assert f"Uid:\t{uid}\t" in status and "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000400" in status, "ports below 1024 and nothing else"
    assert machine.said("stat", "-c", "%U %a", "/var/lib/argosy") == "argosy 700"
    machine.argosy("user", "add", "ann", "--role", "owner")
    assert "ann" in machine.argosy("user", "ls").stdout


def test_it_writes_to_its_own_folder_and_not_to_the_system(machine: Machine) -> None:
    """A task on the server's own machine has what the unit gives, and shows it."""
    tried = 'for each in /usr /etc /boot; do touch $each/x 2>/dev/null && echo "wrote to $each"; done; id -un'
    done = machine.argosy("launch", "--yes", "--cluster", "walls", "--", tried)
    assert "argosy" in done.stdout and "wrote to" not in done.stdout


def test_kill_9_starts_it_again_and_a_stop_does_not(machine: Machine) -> None:
    before = machine.fact("MainPID")
    machine.run("kill", "-9", before)
    machine.wait(
        "it is there again", lambda: machine.fact("MainPID") not in ("0", before) and machine.health()
    )
    assert machine.fact("NRestarts") == "1"
    machine.run("systemctl", "stop", "argosy")
    assert (machine.fact("ActiveState"), machine.fact("Result")) == ("inactive", "success"), machine.log()
    assert machine.health() == {}
    machine.run("systemctl", "start", "argosy")
    machine.wait("the server answers", machine.health)
    assert "ann" in machine.argosy("user", "ls").stdout, "what it knew is there"


def test_work_goes_on_over_an_upgrade(machine: Machine) -> None:
    machine.argosy(
        "launch",
        "--yes",
        "--detach-run",
        "--cluster",
        "long",
        "--",
        "echo $$ > /var/lib/argosy/pid; exec sleep 100000",
    )
    machine.wait(
        "the task runs", lambda: machine.run("test", "-s", "/var/lib/argosy/pid", ok=False).returncode == 0
    )
    pid = machine.said("cat", "/var/lib/argosy/pid")
    install_argosy(machine.root, version="0.1.999")
    machine.run("systemctl", "stop", "argosy")
    assert "sleep" in machine.said("cat", f"/proc/{pid}/cmdline"), "ranks live on while the server is stopped"
    machine.run("systemctl", "start", "argosy")
    machine.wait("the new one answers", lambda: machine.health().get("version") == "0.1.999")
    assert "sleep" in machine.said("cat", f"/proc/{pid}/cmdline")
    machine.wait("it knows", lambda: "RUNNING" in machine.argosy("queue", "long").stdout.upper())
    machine.argosy("down", "--yes", "long")
    machine.wait("the task ends", lambda: machine.run("test", "-d", f"/proc/{pid}", ok=False).returncode == 1)


def test_a_reload_shows_a_new_certificate(machine: Machine) -> None:
    """With a certificate of one's own, which somebody renewed."""

    def make_certificate() -> None:
        machine.run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "30", "-subj", "/CN=argosy.example", "-addext", "subjectAltName=DNS:argosy.example",
            "-keyout", "/etc/argosy/key.pem", "-out", "/etc/argosy/chain.pem",
        )  # fmt: skip
        machine.run("chown", "argosy", "/etc/argosy/key.pem", "/etc/argosy/chain.pem")

    def shown() -> str:
        ask = "import ssl; print(ssl.get_server_certificate(('127.0.0.1', 443)))"
        return machine.said("/opt/argosy/bin/python", "-I", "-c", ask, ok=False)

    make_certificate()
    settings = machine.root / "etc/argosy/server.env"
    kept = [each for each in settings.read_text().splitlines() if "TLS" not in each and "ACME" not in each]
    own = ["ARGOSY_TLS_CERT=/etc/argosy/chain.pem", "ARGOSY_TLS_KEY=/etc/argosy/key.pem"]
    settings.write_text("\n".join([*kept, *own, ""]))
    machine.run("systemctl", "restart", "argosy")
    machine.wait("the server answers", machine.health)
    before = machine.fact("MainPID")
    assert shown() == machine.said("cat", "/etc/argosy/chain.pem")
    make_certificate()
    machine.run("systemctl", "reload", "argosy")
    machine.wait("the new certificate", lambda: shown() == machine.said("cat", "/etc/argosy/chain.pem"))
    assert machine.fact("MainPID") == before, "by the same process"
