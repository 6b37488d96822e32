"""Folders: uploads and downloads of 1 GB beside nginx, the trash of a million files, scans. A table, and JSON
with --json FILE.

    python benchmarks/folders.py [--runs 5] [--mb 1024] [--files 1000000] [--dir DIR] [--json FILE]

Uploads and downloads: curl over a unix socket, by turns, to a real server and to nginx (its uploads by PUT),
both on the same file system; ours are on the disk (`fdatasync`) before they are confirmed. `our client` sums
the file, sends it and has the sum checked. Beside the wall clock stands the processor's time of the server,
which a busy machine does not change. The trash: by requests; the share of the purge is that of its process.
Needs curl and nginx with its WebDAV module.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import machine

from argosy.api.folders import FolderChange
from argosy.client.client import Client
from argosy.client.folders import FolderFiles
from argosy.storage.folders.disk import count_bytes

NGINX = """\
user root; daemon off; worker_processes 2; pid {at}/nginx.pid; error_log {at}/nginx.log;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {at}/bodies;
  proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  server {{ listen unix:{at}/nginx.sock; root {at}/files; dav_methods PUT DELETE; }} }}
"""


@dataclass
class Row:
    what: str
    ours: float
    theirs: float | None
    unit: str
    times: float | None
    cpu_s: float | None = None  # of the server, for each GB
    their_cpu_s: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="folders-") as made:
        at = Path(made)
        with a_server(at) as (client, server), nginx(at) as static:
            site = Site(at, client, server, static, options.mb, options.runs)
            rows = [*transfers(site), *trash(at, client, options.files)]
    print("| what | ours | nginx | × | CPU of ours | of nginx |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        theirs = f"{row.theirs:,.0f} {row.unit}" if row.theirs is not None else ""
        figure = f"{row.ours:,.0f}" if row.unit == "MB/s" else f"{row.ours:.3f}"
        times = f"{row.times:.2f}" if row.times is not None else ""
        cpu = [f"{each:.2f} s/GB" if each is not None else "" for each in (row.cpu_s, row.their_cpu_s)]
        print(f"| {row.what} | {figure} {row.unit} | {theirs} | {times} | {cpu[0]} | {cpu[1]} |")
    told = {"folder": str(options.dir), "mb": options.mb, "files": options.files}
    machine.write(options.json, **told, rows=[asdict(row) for row in rows])


@dataclass
class Site:
    """Where it is measured. `server`, `nginx`: their processes."""

    at: Path
    client: Client
    server: int
    nginx: int
    mb: int
    runs: int


@contextmanager
def a_server(at: Path) -> Iterator[tuple[Client, int]]:
    home = at / "home"
    process = subprocess.Popen([sys.executable, "-m", "argosy.server", "run", "--state-dir", home])
    try:
        client = Client(env={"ARGOSY_SERVER": f"unix://{home}/run/server.sock"}, start=False)
        for _ in range(1200):
            try:
                client.volumes()
                break
            except Exception:
                time.sleep(0.1)
        client.make_folder("train", user="ann")
        yield client, process.pid
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def nginx(at: Path) -> Iterator[int]:
    (at / "files").mkdir()
    (at / "nginx.conf").write_text(NGINX.format(at=at))
    process = subprocess.Popen(["nginx", "-c", at / "nginx.conf", "-e", at / "nginx.log"])
    try:
        while not (at / "nginx.sock").exists():
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def curl(socket: Path, *words: str) -> str:
    """Headers of the answer. Raises CalledProcessError."""
    command = ["curl", "-sS", "--fail", "--unix-socket", str(socket), "-H", "Expect:", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)}: {done.stderr}{done.stdout}")
    return done.stdout


def transfers(site: Site) -> Iterator[Row]:
    at, client, mb = site.at, site.client, site.mb
    source = at / "source.bin"
    data = os.urandom(1 << 20)
    with source.open("wb") as file:
        for number in range(mb):
            file.write(number.to_bytes(8, "big") + data[8:])
    theirs = at / "nginx.sock"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    def put() -> None:
        curl(theirs, "-T", str(source), "http://n/big.bin")

    def by_client() -> None:
        files = FolderFiles(client.location, "train")
        client.remove_files("train", "big.bin")
        files.upload(source, "big.bin", replace=True)
        files.close()

    def row(what: str, mine: Taken, other: Taken) -> Row:
        rate = [mb * 1.048576 / each.wall_s for each in (mine, other)]
        cpu = [each.cpu_s * 1024 / mb for each in (mine, other)]
        return Row(what, rate[0], rate[1], "MB/s", other.wall_s / mine.wall_s, cpu[0], cpu[1])

    plain, summed, mine, static = turns(
        site,
        (site.server, lambda: patch(site, source, {})),
        (site.server, lambda: patch(site, source, {"sha256": digest})),
        (site.server, by_client),
        (site.nginx, put),
    )
    yield row("upload by curl", plain, static)
    yield row("upload by curl, SHA-256 checked", summed, static)
    yield row("upload by our client, SHA-256 made and checked", mine, static)
    content = "http://a/v1/folders/train/content?path=big.bin"
    down, static = turns(
        site,
        (site.server, lambda: curl(at / "home/run/server.sock", "-o", "/dev/null", content)),
        (site.nginx, lambda: curl(theirs, "-o", "/dev/null", "http://n/big.bin")),
    )
    yield row("download by curl", down, static)
    source.unlink()
    client.remove_files("train", "big.bin")
    (at / "files/big.bin").unlink()


def patch(site: Site, source: Path, told: dict[str, str]) -> None:
    """An upload as any program would make it: an announcement, then all bytes."""
    ours = site.at / "home/run/server.sock"
    told = {"path": "big.bin", "replace": "true", **told}
    pairs = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items())
    head = ("-H", f"upload-length: {site.mb << 20}", "-H", f"upload-metadata: {pairs}")
    answer = curl(ours, "-X", "POST", "-D", "-", *head, "http://a/v1/folders/train/uploads")
    where = next(line.split()[1] for line in answer.splitlines() if line.lower().startswith("location:"))
    more = ("-H", "upload-offset: 0", "-H", "content-type: application/offset+octet-stream")
    curl(ours, "-X", "PATCH", "-T", str(source), *more, f"http://a{where}")


@dataclass
class Taken:
    wall_s: float
    cpu_s: float  # of the server


def turns(site: Site, *each: tuple[int, Callable[[], object]]) -> list[Taken]:
    """Medians."""
    wall: list[list[float]] = [[] for _ in each]
    cpu: list[list[float]] = [[] for _ in each]
    for _ in range(site.runs):
        for number, (process, work) in enumerate(each):
            began, used = time.perf_counter(), machine.tree_cpu_s(process)
            work()
            wall[number].append(time.perf_counter() - began)
            cpu[number].append(machine.tree_cpu_s(process) - used)
    return [Taken(statistics.median(a), statistics.median(b)) for a, b in zip(wall, cpu, strict=True)]


def trash(at: Path, client: Client, files: int) -> Iterator[Row]:
    made = client.make_folder("many", user="ann")
    inside = at / "home/folders" / made.id
    for number in range(files // 1000):
        folder = inside / f"d{number // 100}" / f"d{number}"
        folder.mkdir(parents=True)
        fd = os.open(folder, os.O_RDONLY)
        for each in range(1000):
            os.close(os.open(f"f{each}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
        os.close(fd)
    began = time.perf_counter()
    count_bytes(inside)
    scan = time.perf_counter() - began
    yield Row(f"scan of {files:,} files", scan, None, "s", None)
    began = time.perf_counter()
    client.change_folder(made.id, FolderChange(trashed=True))
    yield Row(f"trash of {files:,} files", time.perf_counter() - began, None, "s", None)
    began = time.perf_counter()
    client.change_folder(made.id, FolderChange(trashed=False))
    yield Row("restore", time.perf_counter() - began, None, "s", None)
    client.change_folder(made.id, FolderChange(trashed=True))
    began, used = time.perf_counter(), 0.0
    purging = threading.Thread(target=client.purge_folder, args=(made.id,))
    purging.start()
    where = at / "home/folders/.argosy/trash" / made.id
    while where.exists():
        used = max(used, _cpu_of_purge(str(where)))
        time.sleep(0.05)
    took = time.perf_counter() - began
    purging.join()
    yield Row("purge, in the background", took, None, "s", None)
    yield Row("  of a processor", used / took, None, "(share)", None)


def _cpu_of_purge(path: str) -> float:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and path.encode() in (entry / "cmdline").read_bytes():
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return 0.0


if __name__ == "__main__":
    for program in ("curl", "nginx"):
        if shutil.which(program) is None:
            raise SystemExit(f"error: there is no {program}\nhint: apt-get install {program}")
    main()
