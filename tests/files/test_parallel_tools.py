"""What the tools promise beyond GNU's: sizes, races, many threads, one file for any machine."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from file_tools import Engine, in_a_fork, make_tree, run

from argosy.files.building import source_files
from argosy.files.front import find_program, numbered, run_tool
from argosy.files.packing import LIMIT_BYTES, files_zipapp


def flat(root: Path, folders: int, files: int) -> None:
    for number in range(folders):
        folder = root / f"g{number % 7}" / f"d{number}"
        folder.mkdir(parents=True)
        for each in range(files):
            (folder / f"f{each}").write_bytes(b"x")


@pytest.mark.process
def test_many_threads_do_what_one_does(engine: Engine, tmp_path: Path) -> None:
    flat(tmp_path / "tree", 10, 200)
    one = engine("find", "tree", "-size", "1", "--threads", "1", cwd=tmp_path)
    many = engine("find", "tree", "-size", "1", "--threads", "20", cwd=tmp_path)
    assert sorted(one.stdout.split()) == sorted(many.stdout.split()) and len(one.stdout.split()) == 2000
    assert engine("cp", "-a", "--threads", "20", "tree", "copy", cwd=tmp_path).returncode == 0
    assert run(["diff", "-r", "tree", "copy"], cwd=tmp_path).returncode == 0
    done = engine("rm", "-r", "--json", "--threads", "20", "copy", cwd=tmp_path)
    assert json.loads(done.stdout)["changed"] == 2000 + 10 + 7 + 1
    assert not (tmp_path / "copy").exists()


@pytest.mark.process
def test_trees_may_be_deeper_than_a_path_is_long(engine: Engine, tmp_path: Path) -> None:
    deep = os.open(tmp_path, os.O_RDONLY)
    name = "deep" * 30
    for _ in range(60):  # longer than a path may be
        os.mkdir(name, dir_fd=deep)
        below = os.open(name, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    assert engine("find", name, cwd=tmp_path).stdout.count(b"\n") == 60
    assert engine("du", "-s", name, cwd=tmp_path).returncode == 0
    assert engine("rm", "-r", name, cwd=tmp_path).returncode == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.process
def test_few_descriptors_are_enough(program: Path, tmp_path: Path) -> None:
    """Above the limit folders are opened anew for each use."""
    flat(tmp_path / "tree", 60, 100)

    def with_few(words: str) -> subprocess.CompletedProcess[bytes]:
        return run(["sh", "-c", f"ulimit -Hn 40; exec {program} {words} --threads 8"], cwd=tmp_path)

    assert with_few("find tree -size 1").stdout.count(b"\n") == 6000
    assert with_few("cp -a tree copy").returncode == 0
    assert run(["diff", "-r", "tree", "copy"], cwd=tmp_path).returncode == 0
    assert with_few("rm -r copy").returncode == 0
    assert not (tmp_path / "copy").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    "tool", [("rm", "-rf"), ("chmod", "-R", "0777"), ("chown", "-R", "12345"), ("cp", "-r")]
)
def test_who_swaps_folders_for_links_leads_nobody_astray(
    engine: Engine, tmp_path: Path, tool: tuple[str, ...]
) -> None:
    outside = tmp_path / "outside"
    flat(outside, 3, 5)
    secret = outside / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    before = sorted((str(path), path.stat().st_mode, path.stat().st_uid) for path in outside.rglob("*"))
    tree = tmp_path / "tree"
    flat(tree, 40, 10)
    over = threading.Event()
    swaps = []

    def swap() -> None:
        """A folder goes away and a link to the outside has its name, again and again."""
        while not over.is_set():
            for number in range(40):
                folder = tree / f"g{number % 7}" / f"d{number}"
                try:
                    folder.rename(tmp_path / "aside")
                    folder.symlink_to(outside)
                    swaps.append(number)
                    time.sleep(0)
                    folder.unlink()
                    (tmp_path / "aside").rename(folder)
                except OSError:
                    pass

    swapper = threading.Thread(target=swap)
    swapper.start()
    while not swaps:
        time.sleep(0.001)
    for attempt in range(3):
        target = (f"copy{attempt}",) if tool[0] == "cp" else ()
        engine(*tool, "--threads", "8", "tree", *target, cwd=tmp_path)
    over.set()
    swapper.join()
    after = sorted((str(path), path.stat().st_mode, path.stat().st_uid) for path in outside.rglob("*"))
    assert after == before and secret.read_text() == "mine"
    assert not any(path.name == "secret" for path in tmp_path.glob("copy*/**/*") if not path.is_symlink())


@pytest.mark.process
def test_sync_removes_nothing_where_the_source_cannot_be_read(engine: Engine, tmp_path: Path) -> None:
    """A folder that is swapped for a file between two looks must not empty its copy."""
    (tmp_path / "source" / "kept").mkdir(parents=True)
    (tmp_path / "source" / "kept" / "one").write_text("1")
    assert engine("sync", "--delete", "source", "copy", cwd=tmp_path).returncode == 0
    for path in ("source", "nowhere", "copy/kept"):
        wrong = engine("sync", "--delete", path, "copy", cwd=tmp_path)
        assert (wrong.returncode != 0) == (path != "source"), path
    assert (tmp_path / "copy" / "kept" / "one").read_text() == "1"


@pytest.mark.process
def test_a_copy_that_is_cut_off_shows_nothing_half(program: Path, tmp_path: Path) -> None:
    flat(tmp_path / "tree", 20, 100)
    (tmp_path / "tree" / "big").write_bytes(os.urandom(1 << 20) * 40)
    for attempt in range(3):
        copy = subprocess.Popen([str(program), "cp", "-a", "tree", f"copy{attempt}"], cwd=tmp_path)
        time.sleep(0.004 * (attempt + 1))
        copy.kill()
        copy.wait()
        for path in (tmp_path / f"copy{attempt}").rglob("*"):
            if path.is_file() and not path.name.startswith(".pf-"):
                assert (
                    path.stat().st_size
                    == (tmp_path / "tree" / path.relative_to(tmp_path / f"copy{attempt}")).stat().st_size
                )
    assert run([str(program), "sync", "--delete", "tree", "copy0"], cwd=tmp_path).returncode == 0
    assert (
        run(["diff", "-r", "tree", "copy0"], cwd=tmp_path).returncode == 0
    )  # and what was left over is gone


@pytest.mark.process
def test_access_lists_and_attributes_travel_with_cp_a(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "file").write_text("x")
    entries = ((1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
    access = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    try:
        os.setxattr(source / "file", "user.origin", b"camera 3")
        os.setxattr(source / "file", "system.posix_acl_access", access)
    except OSError:
        pytest.skip("this file system has no attributes or no access lists")
    assert engine("cp", "-a", "tree", "copy", cwd=tmp_path).returncode == 0
    assert os.getxattr(tmp_path / "copy" / "file", "user.origin") == b"camera 3"
    assert os.getxattr(tmp_path / "copy" / "file", "system.posix_acl_access") == access
    assert engine("sync", "tree", "synced", cwd=tmp_path).returncode == 0
    assert os.getxattr(tmp_path / "synced" / "file", "system.posix_acl_access") == access
    assert engine("cp", "-r", "tree", "plain", cwd=tmp_path).returncode == 0
    assert "user.origin" not in os.listxattr(tmp_path / "plain" / "file")


@pytest.mark.process
def test_a_dry_run_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 3)
    before = run(["find", "tree", "-printf", "%p %m %T@ %C@\\n"], cwd=tmp_path).stdout
    copies = (("cp", "-a"), ("sync", "--delete"))
    for words in (("rm", "-r"), ("chmod", "-R", "0"), ("chown", "-R", "1:1"), ("find", "-delete"), *copies):
        path = ("tree", "copy") if words in copies else ("tree",) if words[0] != "find" else ()
        order = ("find", "tree", "-delete") if words[0] == "find" else (*words, *path)
        done = engine(*order, "--dryrun", cwd=tmp_path)
        assert done.returncode == 0 and b"would " in done.stdout, words
    assert run(["find", "tree", "-printf", "%p %m %T@ %C@\\n"], cwd=tmp_path).stdout == before
    assert not (tmp_path / "copy").exists()


@pytest.mark.process
def test_progress_tells_how_far_it_is_and_changes_no_result(engine: Engine, tmp_path: Path) -> None:
    flat(tmp_path / "tree", 5, 20)
    plain = engine("du", "-s", "tree", cwd=tmp_path)
    told = engine("du", "-s", "--progress", "tree", cwd=tmp_path)
    assert told.stdout == plain.stdout and told.returncode == 0
    assert b"thread" in told.stderr and not plain.stderr, told.stderr


@pytest.mark.process
def test_json_holds_names_of_any_bytes(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in (b"new\nline", b"bad\xff", b'quote"', "größe".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path / "tree") + b"/" + name)).touch()
    lines = engine("find", "tree", "-type", "f", "--json", cwd=tmp_path).stdout.splitlines()
    names = {os.fsencode(json.loads(line)["path"].partition("/")[2]) for line in lines}
    assert names == set(os.listdir(os.fsencode(tmp_path / "tree")))


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("chmod", "u+q", "."), 1, b"invalid mode: 'u+q'"),
        (("chmod", "755"), 1, b"missing operand"),
        (("find", ".", "-nonsense"), 1, b"unknown predicate '-nonsense'"),
        (("du", "-sa", "."), 1, b"cannot both summarize and show all entries"),
        (("cp", "only"), 1, b"missing destination file operand after 'only'"),
        (("rm", "-r", "/"), 1, b"it is dangerous to work on all of '/'"),
        (("sync", ".", "./inside"), 1, b"source and target lie in each other: './inside'"),
        (("rm", "gone"), 1, b"rm: cannot remove 'gone': No such file or directory"),
        (("chown", "nobody-of-that-name", "."), 1, b"nobody is called 'nobody-of-that-name'"),
        (("du", "--threads", "zero"), 1, b"not a number of threads: 'zero'"),
    ],
)
def test_bad_input_says_what_is_wrong(
    engine: Engine, tmp_path: Path, words: tuple[str, ...], status: int, text: bytes
) -> None:
    done = engine(*words, cwd=tmp_path)
    assert done.returncode == status and text in done.stderr, done.stderr


@pytest.mark.process
def test_the_packed_file_runs_alone(program: Path, tmp_path: Path) -> None:
    from argosy.files.front import program_name

    packed = files_zipapp(tmp_path, {program_name(): program})
    assert files_zipapp(tmp_path, {program_name(): program}) == packed
    flat(tmp_path / "tree", 3, 3)
    for environ in ({}, {"ARGOSY_FILES_PROGRAM": "none"}):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(packed), "find", "tree", "-type", "f"],
            cwd=tmp_path,
            env={"XDG_CACHE_HOME": str(tmp_path / "cache"), **environ},
            capture_output=True,
            check=True,
        )
        assert len(done.stdout.splitlines()) == 9
    assert len(list((tmp_path / "cache" / "argosy" / "files").iterdir())) == 1


def test_python_alone_is_far_below_what_may_travel(tmp_path: Path) -> None:
    assert files_zipapp(tmp_path, {}).stat().st_size + 2 * 34_000 < LIMIT_BYTES  # two programs, compressed


def test_names_become_numbers_before_the_static_program_sees_them() -> None:
    assert numbered("chown", ["-R", "root:root", "x"]) == ["-R", "0:0", "x"]
    assert numbered("find", [".", "-user", "root"]) == [".", "-user", "0"]
    assert numbered("chown", ["--reference=a", "b"]) == ["--reference=a", "b"]


def test_the_environment_chooses_the_engine(tmp_path: Path) -> None:
    assert find_program({"ARGOSY_FILES_PROGRAM": "none"}, ["/bin/true"]) == ""
    assert find_program({}, ["/bin/true"]) in ("/bin/true", find_program({}))
    assert find_program({"ARGOSY_FILES_PROGRAM": "/opt/pf"}) == "/opt/pf"


def test_a_program_of_another_machine_falls_back_to_python(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "pf"
    wrong.write_bytes(b"\x7fELF of another world")
    wrong.chmod(0o755)
    (tmp_path / "file").touch()
    pid = os.fork()
    if not pid:
        os._exit(run_tool("find", [str(tmp_path / "file")], str(wrong)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    out, err = capfd.readouterr()
    assert out.strip() == str(tmp_path / "file") and "does not run here" in err


def test_sources_in_c_are_short() -> None:
    for path in source_files():
        lines = path.read_text().splitlines()
        assert len(lines) <= 500, path
        assert max(map(len, lines)) <= 125, path


@pytest.mark.process
def test_the_twin_grows_only_while_calls_sleep(tmp_path: Path) -> None:
    flat(tmp_path / "tree", 20, 100)
    done = in_a_fork("chmod", "-R", "--json", "u+rw", "tree", cwd=tmp_path)
    assert json.loads(done.stdout)["threads"] <= 4
