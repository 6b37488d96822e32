"""Hosts to log in to, on this machine: each has its own network, processes, hostname, disk and sshd.

A host is a set of Linux namespaces on a bridge. It can be switched off and on, cut off from the network,
slowed down, and broken in the ways real hosts are: a full, read-only or noexec home, no Python or an old
one, sshd gone. Needs root, sshd and iproute2; latency needs a C compiler, cuts and loss need nftables.

A lab takes a number that nobody on this machine has (a lock that goes with the process), and with it names
and the subnet 10.77.NUMBER.0/24: labs of several test processes do not meet. What a killed process left is
removed by the next lab with the same number.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Self

from argosy.testing.host_life import BOOT_SCRIPT, OLD_PYTHON, SSHD_START

LABS: Final = Path("/tmp/argosy-labs")
USER: Final = "ann"  # beside root; logs in with the lab's key or with PASSWORD
PASSWORD: Final = "open sesame"
DISK_BYTES: Final = 256 << 20
_BOOT_S: Final = 20.0
_TOOLS: Final = ("/usr/sbin/sshd", "ssh", "ssh-keygen", "ip", "nsenter", "unshare", "setpriv", "mount")
#: Where sshd's sessions look for programs.
_PATHS: Final = ("/usr/local/bin", "/usr/bin", "/bin")


def why_no_hosts() -> str:
    """Why this machine cannot make hosts; "" when it can."""
    if os.geteuid() != 0:
        return "hosts in namespaces need root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return (
            f"hosts in namespaces need {', '.join(missing)} (packages openssh-server, iproute2, util-linux)"
        )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"namespaces cannot be made here: {done.stderr.strip()}"


class HostLab:
    """`count` hosts that are up when the `with` block begins, and gone after it.

    `hosts[i].ip`, `.name`; to give to a provider or to ssh: `key_file`, `known_hosts`, `config_file` (one
    `Host` entry for each name). `options` are lines of sshd's configuration for every host.
    """

    def __init__(
        self, count: int, *, options: Sequence[str] = (), disk_bytes: int = DISK_BYTES, user: str = USER
    ) -> None:
        self.number, self._lock = _take_number()
        self.subnet = f"10.77.{self.number}"
        self.folder = LABS / str(self.number)
        self.shared = self.folder / "shared"  # /shared of every host, as a file server would be
        self.bridge = f"albr{self.number}"
        self.key_file = self.folder / "key"
        self.known_hosts = self.folder / "known_hosts"
        self.config_file = self.folder / "config"
        self.disk_bytes = disk_bytes
        self.user = user
        self.hosts = [Host(self, index, options) for index in range(1, count + 1)]

    def __enter__(self) -> Self:
        try:
            self._clear()
            self._prepare()
            for host in self.hosts:
                host.boot(wait=False)
            for host in self.hosts:
                host.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.kill()
        self._clear()
        os.close(self._lock)

    def add(self, *, options: Sequence[str] = ()) -> Host:
        """One more host, up."""
        host = Host(self, len(self.hosts) + 1, options)
        self.hosts.append(host)
        host.prepare()
        self._write_lists()
        host.boot()
        return host

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True)
        self.shared.mkdir()
        self.shared.chmod(0o1777)
        make_key(self.key_file)
        _ip(
            [
                f"link add {self.bridge} type bridge",
                f"addr add {self.subnet}.1/24 dev {self.bridge}",
                f"link set {self.bridge} up",
            ]
        )
        for host in self.hosts:
            host.prepare()
        self._write_lists()

    def _write_lists(self) -> None:
        names = "".join(f"{host.ip} {host.name}\n" for host in self.hosts)
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n" + names)
        self.known_hosts.write_text(
            "".join(f"{host.ip},{host.name} {host.host_key}\n" for host in self.hosts)
        )
        self.config_file.write_text("".join(map(self._entry, self.hosts)))

    def _entry(self, host: Host) -> str:
        return (
            f"Host {host.name}\n  HostName {host.ip}\n  User root\n  IdentityFile {self.key_file}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.known_hosts}\n  HostKeyAlias {host.name}\n"
        )

    def _clear(self) -> None:
        """Nothing of this lab is left, also of an earlier process with the same number."""
        # The device first: a namespace that is deleted gives its devices back later.
        for link in Path("/sys/class/net").glob(f"al{self.number}-*"):
            _quietly("ip", "link", "del", link.name)
        _quietly("ip", "link", "del", self.bridge)
        for space in Path("/run/netns").glob(f"argosy{self.number}-*"):
            _quietly("ip", "netns", "del", space.name)
        for disk in self.folder.glob("*/disk"):
            _quietly("umount", "--lazy", str(disk))
        shutil.rmtree(self.folder, ignore_errors=True)


class Host:
    """One machine of a lab."""

    def __init__(self, lab: HostLab, index: int, options: Sequence[str]) -> None:
        self.lab = lab
        self.name = f"lab{lab.number}-{index}"
        self.ip = f"{lab.subnet}.{index + 9}"
        self.folder = lab.folder / str(index)
        self.disk = self.folder / "disk"
        self.space = f"argosy{lab.number}-{index}"  # its network namespace
        self.options = tuple(options)
        self._link = f"al{lab.number}-{index}"
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: subprocess.Popen[bytes] | None = None
        self._wire_file = self.folder / "wire"
        self._cut: tuple[bool, bool] = (False, False)  # what comes in, what goes out
        self._loss_percent = 0

    @property
    def host_key(self) -> str:
        """Type and key, as in known_hosts."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def prepare(self) -> None:
        """Its disk, keys and network cable; not yet switched on."""
        self.disk.mkdir(parents=True)
        _run(
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"mode=755,size={self.lab.disk_bytes}",
            "argosy-disk",
            str(self.disk),
        )
        make_key(self.folder / "host_key")
        _ip(
            [
                f"netns add {self.space}",
                f"link add {self._link} type veth peer name eth0 netns {self.space}",
                f"link set {self._link} master {self.lab.bridge} up",
            ]
        )
        self._address()

    def _address(self, mac: str = "") -> None:
        _ip(
            [f"link set eth0 address {mac}"] * bool(mac)
            + [
                f"addr add {self.ip}/24 dev eth0",
                "link set lo up",
                "link set eth0 up",
                f"route add default via {self.lab.subnet}.1",
            ],
            self.space,
        )

    # ---- power

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def boot(self, *, wait: bool = True) -> None:
        """Switch on (again). Disk and home are as they were; /tmp, /run and /dev are fresh. The host dies
        with the thread that boots it: use the main one."""
        if self.is_up:
            return
        environ = {
            "FOLDER": str(self.folder),
            "LISTS": str(self.lab.folder),
            "NAME": self.name,
            "USER_NAME": self.lab.user,
            "PASSWORD": PASSWORD,
            "SSHD": SSHD_START.format(options=" ".join(f"-o '{line}'" for line in self.options)),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        # The host ends with us, however we end: each process asks the kernel for it.
        command = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.space}"]
        command += ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "sh", "-c", BOOT_SCRIPT],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until sshd answers on the network. Raises TimeoutError with the host's own words."""
        ends_s = time.monotonic() + _BOOT_S
        while True:
            if self.is_up and self._pid and self.path("/run/sshd.pid").exists():
                return
            if not self.is_up or time.monotonic() > ends_s:
                said = (self.folder / "log").read_text(errors="replace")[-1500:]
                raise TimeoutError(f"host {self.name} did not come up: {said}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Power off without notice: every process of it dies at once; clients are refused."""
        self.slow()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def remove(self) -> None:
        """Its disk and network cable go; it must be off."""
        _quietly("ip", "link", "del", self._link)
        _quietly("ip", "netns", "del", self.space)
        _quietly("umount", "--lazy", str(self.disk))
        shutil.rmtree(self.folder, ignore_errors=True)

    def network(self, line: str) -> None:
        """A line for `ip` in its network."""
        _ip([line], self.space)

    def reboot(self) -> None:
        self.kill()
        self.boot()

    # ---- inside

    @property
    def _pid(self) -> int:
        """The first process of the host, as we number it; 0 while there is none."""
        if self._process is None:
            return 0
        try:
            text = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        except OSError:
            return 0
        return int(text.split()[0]) if text.strip() else 0

    def path(self, inside: str) -> Path:
        """A file of the host, to read or write from here. The host must be up."""
        return Path(f"/proc/{self._pid}/root{inside}")

    def run(self, command: str, *, user: str = "root") -> str:
        """What a shell command prints, run in the host without ssh. Raises OSError with its complaint."""
        return _run(*self._inside(command, user))

    def _inside(self, command: str, user: str = "root") -> list[str]:
        entered = ["nsenter", f"--target={self._pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        entered += ["--root", "--wdns=/", "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]
        if user != "root":
            entered += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*entered, "sh", "-c", command]

    def processes(self, words: str) -> list[int]:
        """Pids (as the host numbers them) of processes whose command line holds `words`."""
        done = subprocess.run(
            self._inside(f"pgrep -f -- '{words}'"), capture_output=True, text=True, check=False
        )
        return [int(line) for line in done.stdout.split()]

    def stop_sshd(self) -> None:
        """sshd and every session of it die; everything else goes on."""
        self.run("pkill -KILL sshd; rm -f /run/sshd.pid")

    def start_sshd(self, options: Sequence[str] | None = None) -> None:
        """sshd anew, with these lines of configuration from now on (None: as before)."""
        if options is not None:
            self.options = tuple(options)
        self.run(SSHD_START.format(options=" ".join(f"-o '{line}'" for line in self.options)))
        self.wait()

    def new_host_key(self) -> None:
        """As after a new installation: another key, which `known_hosts` does not have."""
        make_key(self.folder / "host_key")
        self.stop_sshd()
        for name in ("host_key", "host_key.pub"):
            shutil.copy(self.folder / name, self.path(f"/run/{name}"))
        self.start_sshd()

    # ---- disk and programs

    def fill_disk(self) -> None:
        """Not a byte is free on its disk, home included."""
        state = os.statvfs(self.disk)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        _run("mount", "-o", f"remount,size={used}", str(self.disk))

    def free_disk(self) -> None:
        _run("mount", "-o", f"remount,size={self.lab.disk_bytes}", str(self.disk))

    def mount_home(self, option: Literal["rw", "ro", "noexec"]) -> None:
        """Homes of all its users are writable, read-only, or refuse to start programs; until it is
        rebooted."""
        for home in ("/root", "/home"):
            # A second mount on the first: what is open in the first may stay so.
            self.run(f"while [ $(grep -c ' {home} ' /proc/mounts) -gt 1 ]; do umount -l {home}; done")
            if option != "rw":
                # What opens a file between the two steps keeps the mount busy: then another one is made.
                made = f"mount --bind {home} {home} && mount -o remount,bind,{option} {home}"
                self.run(f"for i in $(seq 100); do {made} && exit; umount -l {home}; done; exit 1")

    def python(self, which: Literal["present", "missing", "old"]) -> None:
        """What `python3` is there: the real one, none, or one that says it is 3.6."""
        for folder in {Path(folder).resolve() for folder in _PATHS}:
            program = folder / "python3"
            if not program.exists():
                continue
            self.run(f"[ ! -e {program}.real ] || mv -f {program}.real {program}")
            if which != "present":
                self.run(f"mv {program} {program}.real")
            if which == "old":
                self.path(str(program)).write_text(OLD_PYTHON.format(real=program.resolve()))
                self.run(f"chmod 755 {program}")

    def skew(self, seconds: int) -> None:
        """The wall clock of every program that starts from now on is so far off; 0: right again."""
        preload = self.path("/etc/ld.so.preload")
        if seconds == 0:
            preload.unlink(missing_ok=True)
            return
        library = self.lab.folder / f"wall_clock{seconds}.so"
        if not library.exists():
            source = str(Path(__file__).with_name("wall_clock.c"))
            _run("cc", "-O2", "-shared", "-fPIC", f"-DOFFSET_S={seconds}", "-o", str(library), source)
        inside = f"/usr/local/lib/{library.name}"
        shutil.copy(library, self.path(inside))
        preload.write_text(inside + "\n")

    # ---- network

    def partition(self, direction: Literal["both", "in", "out"] = "both") -> None:
        """Packets to it (`in`), from it (`out`) or both are dropped without a word."""
        self._cut = (direction != "out", direction != "in")
        self._filter()

    def lose(self, percent: int) -> None:
        """So many of the packets that come in and that go out are lost."""
        self._loss_percent = percent
        self._filter()

    def heal(self) -> None:
        """The network is whole again; latency stays."""
        self._cut, self._loss_percent = (False, False), 0
        self._filter()

    def _filter(self) -> None:
        lines = ["flush ruleset"]
        for hook, word, cut in zip(("input", "output"), ("iifname", "oifname"), self._cut, strict=True):
            rules = [f'{word} "eth0" drop'] if cut else []
            if self._loss_percent and not cut:
                rules.append(f'{word} "eth0" numgen random mod 100 < {self._loss_percent} drop')
            if rules:
                chain = "\n".join([f"type filter hook {hook} priority 0; policy accept;", *rules])
                lines.append(f"table inet argosy_{hook} {{\nchain x {{\n{chain}\n}}\n}}")
        _run("ip", "netns", "exec", self.space, "nft", "-f", "-", text="\n".join(lines) + "\n")

    def slow(self, one_way_ms: float = 0.0) -> None:
        """Every packet takes so much longer each way; 0 puts the plain cable back."""
        if one_way_ms == 0.0:
            if self._wire is not None:
                self._replace_wire()
            return
        self._wire_file.write_text(f"{int(one_way_ms * 1e6)} 0\n")
        if self._wire is not None:
            self._wire.send_signal(signal.SIGUSR1)
            return
        program = self.lab.folder / "latency_wire"
        if not program.exists():
            _run("cc", "-O2", "-o", str(program), str(Path(__file__).with_name("latency_wire.c")))
        mac = self._mac()
        _run("ip", "link", "del", self._link)
        self._wire = subprocess.Popen(
            [str(program), f"/run/netns/{self.space}", "eth0", self._link, str(self._wire_file)],
            stdout=subprocess.PIPE,
        )
        assert self._wire.stdout is not None
        if self._wire.stdout.readline() != b"up\n":
            raise OSError("the wire with latency does not start: see what it printed")
        _ip([f"link set {self._link} master {self.lab.bridge} up"])
        self._address(mac)

    def _replace_wire(self) -> None:
        assert self._wire is not None and self._wire.stdout is not None
        mac = self._mac()
        self._wire.kill()
        self._wire.wait()
        self._wire.stdout.close()
        self._wire = None
        _ip(
            [
                f"link add {self._link} type veth peer name eth0 netns {self.space}",
                f"link set {self._link} master {self.lab.bridge} up",
            ]
        )
        self._address(mac)

    def _mac(self) -> str:
        """Peers remember it: whatever replaces the device keeps it."""
        words = _run("ip", "-n", self.space, "link", "show", "eth0").split()
        return words[words.index("link/ether") + 1]


def make_key(path: Path, *, passphrase: str = "") -> None:
    """An ed25519 key pair, in place of one that is there."""
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "lab", "-f", str(path))


def _take_number() -> tuple[int, int]:
    """A number for a lab, and the handle whose lock keeps it ours."""
    LABS.mkdir(exist_ok=True)
    for number in range(1, 250):
        handle = os.open(LABS / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        return number, handle
    raise OSError(f"249 labs are in use: see {LABS}")


def _ip(lines: Sequence[str], space: str = "") -> None:
    _run("ip", *(["-n", space] if space else []), "-batch", "-", text="\n".join(lines) + "\n")


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        words = f"`{' '.join(command)[-200:]}` failed: {done.stderr.strip() or done.stdout.strip()}"
        raise OSError(words)
    return done.stdout.strip()


def _quietly(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=False)
