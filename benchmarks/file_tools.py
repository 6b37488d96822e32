"""The parallel file tools beside GNU's, in one run. A table, and JSON with --json FILE.

    python benchmarks/file_tools.py [--large] [--python] [--runs 3] [--local DIR] [--filer] [--json FILE]

On a slow filer: trees on tmpfs, and a library (`slow_calls.c`) that makes each call sleep for one round
trip. 20,000 files; with --large also 200,000, where GNU's time is ten times that of 20,000 (said in the
table). On a filer by FUSE (--filer; `slow_filer.c`), whose own work on this machine is the ceiling. On a
local disk and in the cache (--local DIR): medians of --runs, GNU and ours in turns, also of the processor's
time, which a busy machine does not change; --shipped: the static program that a release has. Needs a C
compiler, --filer also libfuse3-dev and root; cold caches need root.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import machine

from argosy.files.building import compile_program, compilers, this_architecture

HERE = Path(__file__).resolve().parent
#: Row, GNU's command, ours. `{tree}` is what is worked on, `{copy}` a fresh name.
TOOLS = (
    ("find -size", ("find", "{tree}", "-size", "+0"), "find"),
    ("du -s", ("du", "-s", "{tree}"), "du"),
    ("chmod -R", ("chmod", "-R", "u=rwX,g=rX,o=", "{tree}"), "chmod"),
    ("cp -r", ("cp", "-r", "{tree}", "{copy}"), "cp"),
    ("rm -r", ("rm", "-r", "{copy}"), "rm"),
)


@dataclass
class Row:
    where: str
    tool: str
    files: int
    gnu_s: float
    gnu_from: str  # "measured", or how it follows
    ours_s: float
    times: float
    threads: int
    python_s: float | None = None
    cpu_times: float | None = None  # GNU's time of the processor for each second of ours


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="also 200,000 files")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--latency-us", type=int, default=500)
    parser.add_argument("--local", type=Path, help="a folder on a local disk")
    parser.add_argument("--local-files", type=int, default=100_000, help="there")
    parser.add_argument("--only", default="", help="on the local disk: names of tools, with commas")
    parser.add_argument("--filer", action="store_true", help="a filer by FUSE")
    parser.add_argument("--skip-slow", action="store_true", help="not the filer whose calls sleep")
    parser.add_argument("--no-copies", action="store_true", help="without cp and rm on the local disk")
    parser.add_argument("--shipped", type=Path, help="the static program, for the disk and the cache")
    parser.add_argument("--python", action="store_true", help="the engine in Python too, on the slow filer")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        room = Path(folder)
        program, shim = build(room)
        if not options.skip_slow:
            rows += list(slow_filer(room, program, shim, options))
        if options.filer:
            rows += list(fuse_filer(room, program, options.latency_us))
        if options.local is not None:
            rows += list(local_disk(options, options.shipped or program))
    print(table(rows))
    machine.write(options.json, latency_us=options.latency_us, rows=[asdict(each) for each in rows])


def build(room: Path) -> tuple[Path, Path]:
    """The program linked to the C library that can be preloaded, and the library that makes calls slow."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("error: there is no C compiler\nhint: apt-get install gcc libc6-dev")
    program, shim = room / "pf", room / "slow_calls.so"
    commands = {this_architecture(): [compiler, "-O2", "-pthread"]} if compilers() else {}
    if not compile_program(commands[this_architecture()], program):
        raise SystemExit("error: the program does not compile")
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", shim, HERE / "slow_calls.c", "-ldl"], check=True
    )
    return program, shim


def make_tree(root: Path, folders: int, files: int = 100) -> None:
    data = b"x" * 1000
    for number in range(folders):
        folder = root / f"g{number // 50}" / f"d{number}"
        folder.mkdir(parents=True)
        at = os.open(folder, os.O_RDONLY)
        for each in range(files):
            fd = os.open(f"f{each}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
            os.write(fd, data)
            os.close(fd)
        os.close(at)


def timed(command: list[str], environ: dict[str, str] | None = None) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env={**os.environ, **(environ or {})}, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def words(command: tuple[str, ...], tree: Path, copy: Path) -> list[str]:
    return [each.format(tree=tree, copy=copy) for each in command]


def slow_filer(room: Path, program: Path, shim: Path, options: argparse.Namespace) -> Iterator[Row]:
    slow = {"LD_PRELOAD": str(shim), "SLOW_US": str(options.latency_us)}
    where = f"{options.latency_us / 1000:g} ms a call"
    small = room / "small"
    make_tree(small, 200)
    gnu: dict[str, float] = {}
    for name, command, tool in TOOLS:
        gnu[name] = timed(words(command, small, room / "gnu"), slow)
        ours, threads = parallel(program, command, tool, small, room / "ours", slow, options.runs)
        python = in_python(command, tool, small, room / "twin", slow) if options.python else None
        yield Row(where, name, 20_000, gnu[name], "measured", ours, gnu[name] / ours, threads, python)
    shutil.rmtree(small)
    if options.large:
        large = room / "large"
        make_tree(large, 2000)
        for name, command, tool in TOOLS:
            ours, threads = parallel(program, command, tool, large, room / "ours", slow, 1)
            yield Row(
                where, name, 200_000, gnu[name] * 10, "10 × 20,000", ours, gnu[name] * 10 / ours, threads
            )
        shutil.rmtree(large)


def fuse_filer(room: Path, program: Path, latency_us: int) -> Iterator[Row]:
    """20,000 files, each tool once by GNU and once by ours, on a cold mount, with and without attributes that
    the kernel keeps."""
    filer, root, mount = room / "slow_filer", room / "filer", room / "mount"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, check=True)
    source = str(HERE / "slow_filer.c")
    subprocess.run(["cc", "-O2", "-o", filer, source, *flags.stdout.decode().split()], check=True)
    mount.mkdir()
    for keep_s in (3, 0):
        (root / "tree").mkdir(parents=True)
        make_tree(root / "tree", 200)
        told = {"FILER_ROOT": str(root), "FILER_US": str(latency_us), "FILER_KEEP_S": str(keep_s)}
        where = f"FUSE, {latency_us / 1000:g} ms, " + (f"attributes {keep_s} s" if keep_s else "nothing kept")
        for name, command, tool in TOOLS:
            if not keep_s and tool in ("cp", "rm"):
                continue
            taken, threads = {}, 0
            for who in ("gnu", "ours"):
                with mounted(filer, mount, told):
                    line = [str(program), tool, "--progress"] if who == "ours" else [command[0]]
                    begun = time.perf_counter()
                    done = subprocess.run(
                        [*line, *words(command[1:], mount / "tree", mount / f"copy-{who}")],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        check=True,
                    )
                    taken[who] = time.perf_counter() - begun
                    threads = int(done.stderr.split()[-2]) if who == "ours" else 0
            times = taken["gnu"] / taken["ours"]
            yield Row(where, name, 20_000, taken["gnu"], "measured", taken["ours"], times, threads)
        shutil.rmtree(root)


@contextmanager
def mounted(filer: Path, mount: Path, told: dict[str, str]) -> Iterator[None]:
    options = "max_threads=200,max_idle_threads=200,allow_other,default_permissions"
    process = subprocess.Popen([filer, "-f", "-o", options, mount], env={**os.environ, **told})
    try:
        while not os.path.ismount(mount):
            if process.poll() is not None:
                raise SystemExit("error: the filer does not start\nhint: it needs /dev/fuse and root")
            time.sleep(0.02)
        yield
    finally:
        subprocess.run(["fusermount3", "-u", mount], check=False)
        process.wait(20)


def parallel(
    program: Path,
    command: tuple[str, ...],
    tool: str,
    tree: Path,
    copy: Path,
    environ: dict[str, str],
    runs: int,
) -> tuple[float, int]:
    """The median, and how many threads it came to. cp and rm take turns: each run of one needs the other."""
    taken, threads = [], 0
    for _ in range(runs):
        if tool == "rm" and not copy.exists():
            subprocess.run(["cp", "-r", tree, copy], check=True)
        if tool == "cp" and copy.exists():
            shutil.rmtree(copy)
        order = [str(program), tool, "--progress", *words(command[1:], tree, copy)]
        begun = time.perf_counter()
        done = subprocess.run(
            order,
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        taken.append(time.perf_counter() - begun)
        threads = int(done.stderr.split()[-2])
    return statistics.median(taken), threads


def in_python(command: tuple[str, ...], tool: str, tree: Path, copy: Path, environ: dict[str, str]) -> float:
    order = [os.sys.executable, "-S", "-m", "argosy.files", tool, *words(command[1:], tree, copy)]
    source = str(HERE.parent / "src")
    return timed(order, {**environ, "ARGOSY_FILES_PROGRAM": "none", "PYTHONPATH": source})


def local_disk(options: argparse.Namespace, program: Path) -> Iterator[Row]:
    """GNU and ours in turns, cold where caches can be dropped, then cached."""
    folder, runs = options.local, options.runs
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        tree, copies = Path(made) / "tree", Path(made)
        make_tree(tree, options.local_files // 100)
        os.sync()
        cold = os.access("/proc/sys/vm/drop_caches", os.W_OK)
        for state in ("local disk, cold", "cached") if cold else ("cached",):
            for name, command, tool in TOOLS:
                if (state == "cached" or options.no_copies) and tool in ("cp", "rm"):
                    continue
                if options.only and tool not in options.only.split(","):
                    continue
                row = beside(state, name, command, tool, tree, copies, program, runs)
                yield replace(row, files=options.local_files)


def beside(
    state: str,
    name: str,
    command: tuple[str, ...],
    tool: str,
    tree: Path,
    copies: Path,
    program: Path,
    runs: int,
) -> Row:
    taken: dict[str, list[float]] = {"gnu": [], "ours": []}
    cpu: dict[str, list[float]] = {"gnu": [], "ours": []}
    threads = 0
    for run in range(runs):
        for who in ("gnu", "ours"):
            copy = copies / f"{who}-{run}"
            if tool == "rm" and not copy.exists():
                subprocess.run(["cp", "-r", tree, copy], check=True)
                os.sync()
            if state != "cached":
                Path("/proc/sys/vm/drop_caches").write_text("3")
            used = _children_cpu_s()
            if who == "gnu":
                taken[who].append(timed(words(command, tree, copy)))
            else:
                begun = time.perf_counter()
                order = [str(program), tool, "--progress", *words(command[1:], tree, copy)]
                done = subprocess.run(order, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
                taken[who].append(time.perf_counter() - begun)
                threads = int(done.stderr.split()[-2])
            cpu[who].append(_children_cpu_s() - used)
            if tool == "cp":
                os.sync()
                shutil.rmtree(copy)
    gnu, ours = statistics.median(taken["gnu"]), statistics.median(taken["ours"])
    of_cpu = statistics.median(cpu["gnu"]) / statistics.median(cpu["ours"])
    return Row(state, name, 100_000, gnu, "measured", ours, gnu / ours, threads, cpu_times=of_cpu)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rows: list[Row]) -> str:
    lines = [
        "| where | tool | files | GNU | ours | × | × by CPU | threads | Python |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        gnu = f"{row.gnu_s:.2f} s" + ("" if row.gnu_from == "measured" else f" ({row.gnu_from})")
        cpu = f"{row.cpu_times:.2f}" if row.cpu_times is not None else ""
        python = f"{row.python_s:.2f} s" if row.python_s is not None else ""
        lines.append(
            f"| {row.where} | {row.tool} | {row.files:,} | {gnu} | {row.ours_s:.2f} s | {row.times:.2f} "
            f"| {cpu} | {row.threads} | {python} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
