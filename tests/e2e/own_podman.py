"""A podman with a store, namespaces and networks of its own, and file trees for its containers.

Containers get networks and mounts inside of namespaces that end with the test, so nothing of this machine
changes. crun refuses to start where version 2 of control groups offers something beside version 1; there the
second tree is not mounted in these namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PATIENCE_S = 600  # of one command, which may install packages

_HOLD = """
set -e
mount --make-rprivate /
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
for each in containers libpod crun; do mkdir -p /run/$each; mount -t tmpfs tmpfs /run/$each; done
ip link set lo up
echo ready
exec cat
"""


_THERE = 'cd "$0" && exec "$@"'


class Engine:
    """`podman` below one folder, in a network of its own."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or any(not shutil.which(name) for name in ("podman", "unshare", "nsenter")):
            pytest.skip("NO CONTAINERS ARE STARTED: needs root, podman and util-linux")
        self.folder = folder
        storage = folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/g"\nrunroot = "{folder}/r"\n'
        )
        settings = folder / "containers.conf"
        _, handles = _limits()
        settings.write_text(
            f'[containers]\ndefault_ulimits = ["nofile={handles}:{handles}", "nproc=32768:32768"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{folder}/networks"\n'
        )
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
        self.env |= {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(settings)}
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--kill-child", "--fork", "sh", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            pytest.skip("NO CONTAINERS ARE STARTED: namespaces cannot be made here")
        [child] = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        self.inside = ["nsenter", f"--target={child}", "--mount"]

    def run(
        self, *words: str, ok: bool = True, cwd: Path | None = None, network: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Any program, in the namespaces; without `network` it keeps this machine's network."""
        done = subprocess.run(
            [*self.inside, *(["--net"] if network else []), "--", "sh", "-c", _THERE, str(cwd or "/"),
             *words],
            env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not ok, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done

    def podman(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("podman", *words, ok=ok)

    def end(self) -> None:
        self.podman("pod", "rm", "--all", "--force", "--time=0", ok=False)
        self.podman("rm", "--all", "--force", "--time=0", ok=False)
        self.podman("umount", "--all", "--force", ok=False)
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(30)
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)  # layers of images have many files


def _limits() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    made = Engine(folder)
    try:
        yield made
    finally:
        made.end()


def make_images(podman: Engine) -> None:
    """`argosy` as docs/deploy/Dockerfile says, from what the registries of this machine have; instead of the
    images of a registry of images, Debian's own Python and PostgreSQL under the same names."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("NO IMAGES ARE MADE: apt-get install mmdebstrap")
    folder, release = podman.folder, Path("/etc/os-release").read_text()
    suite = next(
        each.partition("=")[2] for each in release.splitlines() if each.startswith("VERSION_CODENAME=")
    )
    sources = [
        each
        for each in Path("/etc/apt").rglob("*")
        if each.suffix == ".sources" or each.name == "sources.list"
    ]
    tree = folder / "base.tar"
    packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
    podman.run(
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        packages,
        suite,
        str(tree),
        *map(str, sources),
        network=False,
    )
    podman.podman("import", str(tree), "localhost/debian")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = podman.podman("run", "--rm", "localhost/debian", "python3", "--version").stdout.split()[-1]
    if not told.startswith(f"{version}."):
        pytest.skip(f"NO IMAGES ARE MADE: Debian has Python {told}, and this is {version}")
    wheels, settings = folder / "wheels", folder / "pip.conf"
    settings.write_text("[global]\nno_index = true\nfind_links = /wheels\n")
    wanted = f"{REPO}[postgres,sso,kubernetes,clouds,storage]"
    podman.run(
        str(Path(sys.base_prefix, "bin/python3")), "-m", "pip", "wheel", "--quiet", f"--wheel-dir={wheels}",
        wanted, "hatchling", cwd=folder, network=False,
    )  # fmt: skip
    (folder / "postgres.sh").write_text(_POSTGRES)
    base = "FROM localhost/debian\nRUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n"
    database = (
        "FROM localhost/debian\nCOPY postgres.sh /\nRUN apt-get update && apt-get install -y "
        '--no-install-recommends postgresql\nENTRYPOINT ["bash", "/postgres.sh"]\n'
    )
    for name, text in (("python:3.11-slim", base), ("postgres:16", database)):
        file = folder / "Containerfile"
        file.write_text(text)
        _build(podman, f"docker.io/library/{name}", file, folder)
    mounts = [f"--volume={settings}:/etc/pip.conf:ro", f"--volume={wheels}:/wheels:ro"]
    _build(podman, "localhost/argosy", REPO / "docs/deploy/Dockerfile", REPO, *mounts)


def _build(podman: Engine, name: str, file: Path, context: Path, *more: str) -> None:
    _, handles = _limits()
    podman.run(
        "podman", "build", "--network=host", "--pull=never", f"--ulimit=nofile={handles}:{handles}",
        f"--tag={name}", f"--file={file}", *more, str(context), network=False,
    )  # fmt: skip


#: What the image `postgres` does with the variables that compose.yaml sets.
_POSTGRES = """\
set -euo pipefail
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH data=/var/lib/postgresql/data
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
install -d -o postgres -g postgres -m 0700 $data
install -d -o postgres -g postgres /run/postgresql
if [ ! -s $data/PG_VERSION ]; then
  install -o postgres -m 0400 "$POSTGRES_PASSWORD_FILE" /run/postgresql/password
  as env PATH="$PATH" initdb -D $data -U "$POSTGRES_USER" --pwfile=/run/postgresql/password \\
    --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C.UTF-8 > /dev/null
  echo "host all all all scram-sha-256" >> $data/pg_hba.conf
  as env PATH="$PATH" pg_ctl -D $data -o "-c listen_addresses=" -w start > /dev/null
  as env PATH="$PATH" createdb -U "$POSTGRES_USER" "$POSTGRES_DB" 2>/dev/null || true
  as env PATH="$PATH" pg_ctl -D $data -w stop > /dev/null
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups \\
  env PATH="$PATH" postgres -D $data -c listen_addresses='*'
"""


def make_system(root: Path) -> list[str]:
    """A Debian of its own below `root`, of which only /usr is this machine's; the volumes that it wants."""
    for name in ("etc", "var/lib", "var/log", "proc", "sys", "dev", "run", "root", "opt", "usr", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "shadow", "nsswitch.conf", "ld.so.cache", "login.defs", "os-release"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), root / "etc" / name)
    for name in ("pam.d", "security", "alternatives", "ssl"):
        if Path("/etc", name).is_dir():
            shutil.copytree(Path("/etc", name), root / "etc" / name, symlinks=True)
    (root / "etc/machine-id").touch()
    (root / "etc/systemd/system").mkdir(parents=True)
    return ["--volume=/usr:/usr:ro"]


def install_argosy(root: Path, version: str = "") -> list[str]:
    """What `python3 -m venv /opt/argosy` and pip would leave there, without asking a registry for what is
    installed already; the volumes that it wants. A `version` is written into the copy."""
    place = root / "opt/argosy"
    shutil.rmtree(place, ignore_errors=True)
    (place / "bin").mkdir(parents=True)
    python = Path(sys.base_prefix) / "bin/python3"
    (place / "bin/python").symlink_to(python)
    (place / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    site = place / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    shutil.copytree(REPO / "src/argosy", site / "argosy", ignore=shutil.ignore_patterns("__pycache__"))
    packages = [each for each in sys.path if each.endswith("site-packages") and Path(each).is_dir()]
    (site / "packages.pth").write_text("".join(f"{each}\n" for each in packages))
    if version:
        first = site / "argosy/__init__.py"
        text = first.read_text()
        found = text.index('__version__ = "')
        first.write_text(f'{text[:found]}__version__ = "{version}"{text[text.index(chr(10), found) :]}')
    program = place / "bin/argosy"
    program.write_text(
        "#!/opt/argosy/bin/python\nimport sys\nfrom argosy.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return [
        f"--volume={each}:{each}:ro" for each in (sys.base_prefix, *packages) if not each.startswith("/usr")
    ]
