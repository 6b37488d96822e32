"""What only a server over a network can do: go away, refuse, come back; several writers at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from pathlib import Path

import msgspec
import pytest
from store_subjects import PostgresSubject

from argosy.model.budget import Budget, budget_id
from argosy.model.errors import ArgosyError, render_error
from argosy.model.rows import Workload
from argosy.server.tokens import Tokens
from argosy.store import Conflict, Store
from argosy.testing.builders import a_job, changed
from argosy.testing.conformance.store_subject import an_event, check_indexes, contents, put
from argosy.testing.postgres_server import PostgresServer, find_postgres
from argosy.testing.virtual_time import FixedClock, SimIds

pytestmark = pytest.mark.postgres


def open_fails(url: str) -> ArgosyError:
    async def main() -> ArgosyError:
        with pytest.raises(ArgosyError) as caught:
            await Store.open(url, ids=SimIds(), clock=FixedClock())
        return caught.value

    return asyncio.run(main())


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    pytest.importorskip("psycopg")
    for url in ("postgresql://me:s3cr3t@127.0.0.1:1/x", "postgres://me:s3cr3t@/x?host=/tmp/nowhere"):
        error = open_fails(url)
        assert error.code == "store-busy" and "PostgreSQL" in error.hint
        assert "s3cr3t" not in render_error(error) + repr(error)


def test_a_refused_database_says_what_to_check(postgres_server: PostgresServer) -> None:
    error = open_fails(postgres_server.url("not_there"))
    assert error.code == "store-busy" and "not_there" in error.what


def test_a_database_without_an_encoding_holds_any_text(postgres_server: PostgresServer) -> None:
    """As `initdb` makes one where no language is set, such as in containers."""
    name = "without_an_encoding"
    made = f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    postgres_server.execute(made)

    async def main() -> None:
        for _ in range(2):
            store = await Store.open(postgres_server.url(name), ids=SimIds(), clock=FixedClock())
            if not (await store.snapshot()).workloads.values():
                await store.commit([a_job(name="größe-東京")])
            await store.close()
        store = await Store.open(postgres_server.url(name), ids=SimIds(), clock=FixedClock())
        assert [row.name for row in (await store.snapshot()).workloads.values()] == ["größe-東京"]
        await store.close()

    asyncio.run(main())


def test_its_place_hides_the_password(postgres_server: PostgresServer) -> None:
    async def main() -> None:
        url = postgres_server.url(postgres_server.make_database()).replace("argosy@", "argosy:s3cr3t@")
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        assert "s3cr3t" not in store.place and "test" in store.place
        await store.close()

    asyncio.run(main())


def test_a_backup_is_the_database_servers_business(postgres: PostgresSubject, tmp_path: Path) -> None:
    async def main() -> None:
        store = await postgres.open()
        assert await store.backup_if_due() is None
        with pytest.raises(ArgosyError) as caught:
            await store.backup(tmp_path / "x.db")
        assert caught.value.code == "unsupported" and "pg_dump" in caught.value.hint
        await store.close()

    asyncio.run(main())


def test_calls_in_the_caller_work_too(postgres_server: PostgresServer) -> None:
    async def main() -> None:
        url = postgres_server.url(postgres_server.make_database())
        store = await Store.open(url, ids=SimIds(), clock=FixedClock(), inline=True)
        job = await put(store, a_job())
        assert contents(await store.snapshot()) == {job.id: job}
        await store.close()

    asyncio.run(main())


def test_connections_that_break_at_any_moment_lose_nothing(postgres: PostgresSubject) -> None:
    """Two stores count on one row while their connections are cut again and again."""

    async def count(store: Store, job_id: str, result: dict[str, int]) -> None:
        for _ in range(60):
            while True:
                try:
                    job = (await store.snapshot()).workloads[job_id]
                    await store.commit([changed(job, attempts=job.status.attempts + 1)])
                except Conflict:
                    continue
                except ArgosyError as error:
                    assert error.code == "store-busy", error.what
                    result["unsure"] += "while it committed" in error.what
                    continue
                result["sure"] += 1
                break

    async def main() -> None:
        one, two = await postgres.open(), await postgres.open()
        job = await put(one, a_job())
        over = threading.Event()

        def cut() -> None:
            while not over.wait(0.02):
                asyncio.run(postgres.cut(one))

        cutter = threading.Thread(target=cut)
        cutter.start()
        result = {"sure": 0, "unsure": 0}
        try:
            await asyncio.gather(*(count(store, job.id, result) for store in (one, two)))
        finally:
            over.set()
            cutter.join()
        row = await one.load(job.id)
        assert isinstance(row, Workload) and row.status.attempts == row.rev - 1
        assert result["sure"] == 120 <= row.status.attempts <= 120 + result["unsure"]
        third = await postgres.open()
        for store in (one, two):
            assert contents(await store.snapshot()) == contents(await third.snapshot())
            check_indexes(await store.snapshot())
        for store in (one, two, third):
            await store.close()

    asyncio.run(main())


class Proxy:
    """Stands before the server's socket; armed, it breaks the connection at the next COMMIT."""

    def __init__(self, server: PostgresServer) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="argosy-proxy-", dir="/tmp")
        self.folder = Path(self._folder.name)
        self.at_commit = ""  # "lose" it, or "lose the reply"
        self._swallow = False
        self._target = str(server.folder / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other, one is client), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if to_server and self.at_commit and b"COMMIT" in data:
                    how, self.at_commit = self.at_commit, ""
                    if how == "lose":
                        break
                    self._swallow = True  # the answer says that it was committed; the client does not hear it
                elif not to_server and self._swallow:
                    self._swallow = False
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("how", ["lose", "lose the reply"])
def test_a_commit_that_may_have_happened_is_not_repeated(postgres_server: PostgresServer, how: str) -> None:
    proxy = Proxy(postgres_server)

    async def main() -> None:
        url = postgres_server.url(postgres_server.make_database())
        store = await Store.open(
            url.replace(str(postgres_server.folder), str(proxy.folder)), ids=SimIds(), clock=FixedClock()
        )
        job = await put(store, a_job())
        proxy.at_commit = how
        with pytest.raises(ArgosyError) as caught:
            await store.commit([changed(job, detail="new")], events=[an_event()])
        assert caught.value.code == "store-busy" and "while it committed" in caught.value.what
        happened = how == "lose the reply"
        if happened:
            job = changed(job, detail="new", rev=2)
        assert contents(await store.snapshot()) == {job.id: job}
        assert len(await store.load_events()) == int(happened)
        assert (await put(store, changed(job, detail="newer"))).rev == job.rev + 1
        await store.close()

    try:
        asyncio.run(main())
    finally:
        proxy.close()


def test_a_database_restored_under_a_running_server_is_read_anew(
    postgres: PostgresSubject, postgres_server: PostgresServer
) -> None:
    async def main() -> None:
        store = await postgres.open()
        job = await put(store, a_job())
        await put(store, a_job(number=2))
        await put(store, changed(job, detail="after the backup"))
        postgres_server.execute("DELETE FROM workload WHERE number = 2", postgres.name)
        body = msgspec.json.encode(job).decode()
        postgres_server.execute(f"UPDATE workload SET rev = 1, seq = 1, body = '{body}'", postgres.name)
        postgres_server.execute("UPDATE head SET seq = 1", postgres.name)
        assert contents(await store.snapshot()) == {job.id: job}
        assert (await put(store, changed(job, detail="again"))).rev == 2
        await store.close()

    asyncio.run(main())


def test_a_server_that_crashed_and_came_back_is_used_again(postgres_server: PostgresServer) -> None:
    binaries = find_postgres()  # one of its own: the others are in the middle of something
    assert binaries is not None and postgres_server
    server = PostgresServer(binaries)

    async def main() -> None:
        url = server.url(server.make_database())
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        job = await put(store, a_job())
        server.restart()
        job = await put(store, changed(job, detail="after the crash"))
        assert contents(await store.snapshot()) == {job.id: job}
        server.stop()
        for call in (store.load(job.id), store.snapshot(), store.commit([changed(job, detail="never")])):
            with pytest.raises(ArgosyError) as caught:
                await call
            assert caught.value.code == "store-busy"
        await store.close()

    try:
        asyncio.run(main())
    finally:
        server.stop()


def test_servers_share_tokens_and_budgets(postgres: PostgresSubject) -> None:
    async def main() -> None:
        one, two = await postgres.open(), await postgres.open()
        here, there = Tokens(one), Tokens(two)
        await here.add("s3cret", name="ci", scope="use", now_ms=1)
        assert await there.caller_of("s3cret") is not None
        assert await there.remove("ci") and await here.caller_of("s3cret") is None
        budget = Budget(id=budget_id("vision"), project="vision", monthly_micro_usd=5)
        (first,) = await one.commit([budget])
        assert (await two.snapshot()).budget_of("vision") == first
        (second,) = await two.commit([msgspec.structs.replace(first, told=("2026-01 spent",))])
        with pytest.raises(Conflict):  # it is told once, whoever looks first
            await one.commit([msgspec.structs.replace(first, told=("2026-01 spent",))])
        assert (await one.snapshot()).budget_of("vision") == second
        await one.close()
        await two.close()

    asyncio.run(main())


def test_servers_with_different_keys_say_so(postgres: PostgresSubject, tmp_path: Path) -> None:
    async def main() -> None:
        one = await postgres.open()
        await one.commit([a_job(id="job-1")], secrets={"job-1": {"A": "1"}})
        url = postgres.server.url(postgres.name)
        two = await Store.open(url, ids=SimIds(), clock=FixedClock(), keys=tmp_path / "other.key")
        with pytest.raises(ArgosyError) as caught:
            await two.load_secrets("job-1")
        assert caught.value.code == "forbidden" and str(tmp_path / "other.key") in caught.value.what
        none = await Store.open(url, ids=SimIds(), clock=FixedClock())
        with pytest.raises(ArgosyError) as caught:
            await none.commit(secrets={"job-1": {"A": "2"}})
        assert caught.value.hint == "set ARGOSY_KEY_FILE"
        for store in (one, two, none):
            await store.close()

    asyncio.run(main())
