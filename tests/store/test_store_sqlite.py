"""What only a file can suffer: rights, damage, a full disk, a second server, a kill."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.model.errors import ArgosyError
from argosy.model.phases import WorkloadPhase
from argosy.model.rows import Workload
from argosy.store import Conflict, Store, lock_state_dir
from argosy.store.backups import KEPT
from argosy.testing.builders import a_cluster, a_job, changed
from argosy.testing.conformance.store_subject import an_event, contents, put
from argosy.testing.conformance.store_writers import count_up
from argosy.testing.virtual_time import FixedClock, SimIds

DAY_S = 86_400


class Home:
    """A state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self.file = self.folder / "argosy.db"
        self.clock = FixedClock()

    async def open(self) -> Store:
        return await Store.open(f"sqlite://{self.file}", ids=SimIds(), clock=self.clock)

    def fill(self, rows: int = 300) -> dict[str, object]:
        """A healthy database of live and finished rows, closed; its live rows."""

        async def main() -> dict[str, object]:
            store = await self.open()
            jobs = await store.commit([a_job(number=n, detail="x" * 500) for n in range(rows)])
            await store.commit([changed(job, phase=WorkloadPhase.FINISHED) for job in jobs[::2]])
            found = contents(await store.snapshot())
            await store.close()
            return dict(found)

        return asyncio.run(main())

    def backup(self) -> Path:
        async def main() -> Path:
            store = await self.open()
            made = await store.backup_if_due()
            assert made is not None
            await store.close()
            return made

        return asyncio.run(main())

    def open_fails(self) -> ArgosyError:
        async def main() -> ArgosyError:
            with pytest.raises(ArgosyError) as caught:
                await self.open()
            return caught.value

        return asyncio.run(main())

    def contents(self) -> dict[str, object]:
        async def main() -> dict[str, object]:
            store = await self.open()
            found = contents(await store.snapshot())
            await store.close()
            return dict(found)

        return asyncio.run(main())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_look(home: Home, tmp_path: Path) -> None:
    async def main() -> None:
        old = os.umask(0)
        try:
            store = await home.open()
            await store.commit([a_job()], secrets={"job-1": {"A": "1"}})
            await store.backup(tmp_path / "made" / "copy.db")
            await store.backup_if_due()
        finally:
            os.umask(old)
        assert mode(home.folder) == 0o700
        for path in [*home.folder.glob("argosy.db*"), *home.folder.glob("backups/*")]:
            assert mode(path) == 0o600, path
        assert len(list(home.folder.glob("argosy.db*"))) == 3  # the file, its log, and the log's index
        assert mode(home.folder / "backups") == 0o700 and mode(tmp_path / "made" / "copy.db") == 0o600
        await store.close()
        assert [path.name for path in home.folder.glob("argosy.db*")] == ["argosy.db"]

    asyncio.run(main())


def test_a_file_that_others_could_read_is_closed_to_them(home: Home) -> None:
    home.fill(2)
    home.file.chmod(0o644)
    home.contents()
    assert mode(home.file) == 0o600


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    home = Home(tmp_path / "a b%20?x=1&ü'")
    rows = home.fill(4)
    assert home.file.exists() and home.contents() == rows


# -- one server -------------------------------------------------------------------------------------


def test_the_second_server_is_told_who_is_there(home: Home) -> None:
    with lock_state_dir(home.folder):
        with pytest.raises(ArgosyError) as caught, lock_state_dir(home.folder):
            pass
        assert caught.value.code == "server-running"
        assert str(os.getpid()) in caught.value.what and str(home.folder) in caught.value.what
        # the refused one did not disturb the first
        assert (home.folder / "server.pid").read_text() == f"{os.getpid()}\n"
    assert mode(home.folder) == 0o700
    with lock_state_dir(home.folder):
        pass


def test_the_lock_of_a_killed_server_is_free(home: Home) -> None:
    code = "import sys,time,pathlib;from argosy.store import lock_state_dir\nwith lock_state_dir(pathlib.Path(sys.argv[1])):\n print('held',flush=True);time.sleep(100)"  # noqa: E501
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(home.folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(ArgosyError) as caught, lock_state_dir(home.folder):
        pass
    assert f"process {child.pid})" in caught.value.what
    child.kill()
    child.wait()
    child.stdout.close()
    with lock_state_dir(home.folder):
        assert (home.folder / "server.pid").read_text() == f"{os.getpid()}\n"


def test_what_another_process_wrote_is_seen_by_the_next_commit(home: Home) -> None:
    async def main() -> None:
        one = await home.open()
        two = await home.open()
        job = await put(one, a_job())
        newer = await put(two, changed(job, detail="by two"))
        with pytest.raises(Conflict):
            await one.commit([changed(job, detail="by one")])
        assert contents(await one.snapshot()) == {job.id: newer}
        cluster = await put(two, a_cluster(name="x"))
        with pytest.raises(Conflict) as caught:
            await one.commit([a_cluster(name="x")])
        assert caught.value.keys == (cluster.id,)
        await one.close()
        await two.close()

    asyncio.run(main())


def test_rows_edited_by_hand_are_a_conflict_and_then_seen(home: Home) -> None:
    async def main() -> None:
        store = await home.open()
        job = await put(store, a_job(detail="before"))
        with sqlite3.connect(home.file) as other:
            other.execute(
                "UPDATE workload SET rev = 5, body = replace(replace(body, 'before', 'after'), "
                "'\"rev\":1', '\"rev\":5')"
            )
        other.close()
        with pytest.raises(Conflict):
            await store.commit([changed(job, detail="mine")])
        row = (await store.snapshot()).workloads[job.id]
        assert (row.detail, row.rev) == ("after", 5)
        assert (await put(store, changed(row, detail="mine"))).rev == 6
        await store.close()

    asyncio.run(main())


def test_the_loop_goes_on_while_another_process_holds_the_file(home: Home) -> None:
    async def main() -> None:
        store = await home.open()
        job = await put(store, a_job())
        other = sqlite3.connect(home.file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(store.commit([changed(job, detail="late")]))
        turns = 0
        while not writing.done():
            await asyncio.sleep(0.01)
            turns += 1
            assert (await store.snapshot()).workloads == {job.id: job}
        with pytest.raises(ArgosyError) as caught:
            await writing
        assert caught.value.code == "store-busy" and str(home.file) in caught.value.what
        assert turns > 20
        other.execute("ROLLBACK")
        other.close()
        assert (await put(store, changed(job, detail="late"))).rev == 2
        await store.close()

    asyncio.run(main())


# -- damage -----------------------------------------------------------------------------------------


def scribble(path: Path, at: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * length)


def page_of(path: Path, table: str) -> int:
    """The place in the file of a table's first page."""
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    return (int(page) - 1) * 4096


DAMAGES = {
    "header": lambda path: scribble(path, 0, 100),
    "first page": lambda path: scribble(path, 100, 3000),
    "table page": lambda path: scribble(path, page_of(path, "workload"), 4096),
    "index page": lambda path: scribble(path, page_of(path, "ix_workload_number"), 2000),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 8192 * 4096),
    "text": lambda path: path.write_bytes(b"this is not a database\n" * 500),
    "short": lambda path: path.write_bytes(b"oops"),
    "row": lambda path: _edit(path, "UPDATE workload SET body = '{\"id\": ' || char(7) WHERE live = 1"),
}


def _edit(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_can_be_restored_as_told(home: Home, damage: str) -> None:
    rows = home.fill()
    backup = home.backup()
    DAMAGES[damage](home.file)
    bytes_before = home.file.read_bytes()
    error = home.open_fails()
    assert error.code == "store-corrupt", error.what
    assert str(home.file) in error.what
    text = "\n".join(error.details)
    assert str(backup) in text and "x" * 100 not in error.what
    assert home.file.read_bytes() == bytes_before  # nothing was made worse
    commands = [line for line in error.details if line.startswith("  ")]
    assert commands.pop() == "  argosy server start"
    subprocess.run(["sh", "-ec", "\n".join(commands)], check=True)
    assert home.contents() == rows
    assert home.file.with_name("argosy.db.damaged").read_bytes() == bytes_before


def test_without_a_backup_it_says_how_to_begin_anew(home: Home) -> None:
    home.fill(10)
    scribble(home.file, 0, 100)
    error = home.open_fails()
    assert error.code == "store-corrupt" and "there is no backup" in error.details[0]
    commands = [line for line in error.details if line.startswith("  ")][:-1]
    subprocess.run(["sh", "-ec", "\n".join(commands)], check=True)
    assert home.contents() == {}


def test_damage_while_running_is_told_too(home: Home) -> None:
    home.fill()

    async def main() -> None:
        store = await home.open()
        _edit(home.file, "UPDATE workload SET body = 'null and void' WHERE live = 0")
        with pytest.raises(ArgosyError) as caught:
            await store.load_jobs(host_id="clu-0")
        assert caught.value.code == "store-corrupt" and caught.value.details
        await put(store, a_job(number=1000))
        await store.close()

    asyncio.run(main())


def test_a_newer_schema_is_refused(home: Home) -> None:
    home.fill(2)
    _edit(home.file, "UPDATE alembic_version SET version_num = '9999'")
    _edit(home.file, "UPDATE identity SET value = '9998' WHERE name = 'least-schema'")
    error = home.open_fails()
    assert error.code == "store-newer" and "9999" in error.what and str(home.file) in error.what


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    error = Home(tmp_path).open_fails()
    assert error.code == "store-busy" and str(tmp_path / "state") in error.what
    folder = Home(tmp_path / "other")
    folder.file.mkdir(parents=True)
    assert folder.open_fails().code == "store-busy"


def test_an_unknown_kind_of_database_is_refused() -> None:
    async def main() -> None:
        for url in ("mysql://x/y", "/path/only.db", "postgresql://host:port/x"):
            with pytest.raises(ArgosyError) as caught:
                await Store.open(url, ids=SimIds(), clock=FixedClock())
            assert caught.value.code == "usage"

    asyncio.run(main())


# -- a kill, a full disk ----------------------------------------------------------------------------

_WRITER = """
import asyncio, sys
from argosy.store import Store
from argosy.testing.builders import a_job
from argosy.testing.virtual_time import FixedClock, SimIds

async def main():
    store = await Store.open("sqlite://" + sys.argv[1], ids=SimIds(), clock=FixedClock())
    number = 0
    while True:
        number += 1
        await store.commit([a_job(id=f"job-{number}-{n}", number=number, detail="x" * 2000) for n in range(5)])
        print(number, flush=True)

asyncio.run(main())
"""  # noqa: E501


def test_what_was_acknowledged_survives_a_kill(home: Home) -> None:
    acknowledged = 0
    for _ in range(3):
        shutil.rmtree(home.folder, ignore_errors=True)
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(home.file)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged >= 40:
                break
        child.send_signal(signal.SIGKILL)
        child.wait()
        acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        child.stdout.close()
        assert home.file.with_name("argosy.db-wal").exists()  # it had no time to tidy up
        rows = home.contents()
        commits = {id.split("-")[1] for id in rows}
        assert len(rows) == 5 * len(commits)  # all of a commit or nothing of it
        assert {str(n) for n in range(1, acknowledged + 1)} <= commits
        assert len(commits) <= acknowledged + 1


_FILLER = """
import asyncio, os, resource, subprocess, sys
from pathlib import Path
from argosy.model.errors import ArgosyError
from argosy.store import Store
from argosy.testing.builders import a_job
from argosy.testing.builders import changed
from argosy.testing.conformance.store_subject import contents
from argosy.testing.virtual_time import FixedClock, SimIds

way, folder = sys.argv[1], Path(sys.argv[2])
if way == "tmpfs":
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder]).returncode:
        sys.exit(77)
    (folder / "ballast").write_bytes(b"x" * (1 << 20))
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))

def make_room():
    if way == "tmpfs":
        (folder / "ballast").unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

async def main():
    store = await Store.open(f"sqlite://{folder}/argosy.db", ids=SimIds(), clock=FixedClock())
    model = {}
    for number in range(1, 1000):
        try:
            (row,) = await store.commit([a_job(number=number, detail="x" * 50_000)])
        except ArgosyError as error:
            assert error.code == "disk-full", (error.code, error.what)
            assert str(folder) in error.what, error.what
            break
        model[row.id] = row
    else:
        raise AssertionError("the disk was never full")
    assert len(model) > 3
    assert contents(await store.snapshot()) == model
    for row in model.values():
        assert await store.load(row.id) == row
    if way == "tmpfs":
        try:
            await store.backup(folder / "copy.db")
            raise AssertionError("a backup on a full disk")
        except ArgosyError as error:
            assert error.code == "disk-full", (error.code, error.what)
    assert not [path for path in folder.iterdir() if "copy" in path.name], "half a backup was left"
    make_room()
    for row in list(model.values()):
        (model[row.id],) = await store.commit([changed(row, detail="y")])
    assert contents(await store.snapshot()) == model
    await store.close()
    again = await Store.open(f"sqlite://{folder}/argosy.db", ids=SimIds(), clock=FixedClock())
    assert contents(await again.snapshot()) == model
    await again.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["limit", "tmpfs"])
def test_a_full_disk_is_told_and_survived(tmp_path: Path, way: str) -> None:
    command = [sys.executable, "-c", _FILLER, way, str(tmp_path)]
    if way == "tmpfs":
        unshare = ["unshare", "--mount", "--map-root-user"]
        if (
            shutil.which("unshare") is None
            or subprocess.run([*unshare, "true"], capture_output=True).returncode
        ):
            pytest.skip("no mount namespaces here")
        command = [*unshare, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if done.returncode == 77:
        pytest.skip("tmpfs cannot be mounted here")
    assert done.returncode == 0, done.stderr


# -- backups ----------------------------------------------------------------------------------------


def test_one_backup_a_day_and_the_last_seven(home: Home) -> None:
    async def main() -> None:
        store = await home.open()
        made: list[Path] = []
        for day in range(10):
            await store.commit([a_job(number=day)])
            path = await store.backup_if_due()
            assert path is not None and path.parent == home.folder / "backups"
            made.append(path)
            assert await store.backup_if_due() is None
            home.clock.advance(DAY_S)
        kept = sorted((home.folder / "backups").iterdir())
        assert kept == made[-KEPT:]
        await store.close()

    asyncio.run(main())
    for number, path in enumerate(sorted((home.folder / "backups").iterdir()), 10 - KEPT + 1):
        copy = Home(home.folder / str(number))
        copy.folder.mkdir(parents=True)
        shutil.copy(path, copy.file)
        assert len(copy.contents()) == number


def test_a_backup_taken_while_writing_is_whole(home: Home, tmp_path: Path) -> None:
    async def main() -> None:
        store = await home.open()
        job = await put(store, a_job())
        await store.commit([a_job(number=n, detail="x" * 20_000) for n in range(300)])
        writing = asyncio.create_task(count_up(store, job.id, 200))
        copies = []
        while not writing.done() or len(copies) < 2:
            copies.append(tmp_path / f"copy{len(copies)}" / "state" / "argosy.db")
            await store.backup(copies[-1])
        await writing
        await store.close()
        last = 0
        for path in copies:
            again = await Store.open(f"sqlite://{path}", ids=SimIds(), clock=FixedClock())
            rows = contents(await again.snapshot())
            row = rows[job.id]
            assert (
                isinstance(row, Workload) and row.status.attempts == row.rev - 1 >= last and len(rows) == 301
            )
            last = row.status.attempts
            await again.close()

    asyncio.run(main())


def test_a_store_in_memory_can_be_copied(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open("sqlite://", ids=SimIds(), clock=FixedClock(), inline=True)
        job = await put(store, a_job())
        await store.commit(events=[an_event()])
        await store.backup(tmp_path / "copy.db")
        assert await store.backup_if_due() is None
        await store.close()
        again = await Store.open(f"sqlite://{tmp_path}/copy.db", ids=SimIds(), clock=FixedClock())
        assert contents(await again.snapshot()) == {job.id: job}
        await again.close()

    asyncio.run(main())


def test_the_file_is_read_through_once_a_day_or_after_a_kill(home: Home) -> None:
    """What the check writes down is the time when it was made."""
    home.fill(4)

    def checked_ms() -> int:
        connection = sqlite3.connect(home.file)
        (found,) = connection.execute("SELECT checked_ms FROM head").fetchone()
        connection.close()
        return int(found)

    home.contents()
    first = checked_ms()
    assert first == home.clock.now_ms()
    home.clock.advance(2 * DAY_S)
    home.contents()
    assert checked_ms() == first + 2 * DAY_S * 1000


def test_importing_the_store_is_cheap() -> None:
    code = """
import sys
import argosy.store
assert not {"sqlalchemy", "alembic", "sqlite3"} & set(sys.modules), "argosy.store"
from argosy.store import Store
assert not {"alembic", "psycopg", "mako"} & set(sys.modules), "Store"
import asyncio
from argosy.testing.virtual_time import FixedClock, SimIds
async def main():
    store = await Store.open("sqlite://", ids=SimIds(), clock=FixedClock())
    await store.close()
asyncio.run(main())
assert not {"alembic", "psycopg", "mako"} & set(sys.modules), "open"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
