"""Tables, migrations, and rows that other versions wrote."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from argosy.model.errors import ArgosyError
from argosy.model.phases import WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.model.tenancy import Queue, Tenancy
from argosy.store import Store, schema
from argosy.store.database import Database
from argosy.store.migrate import SCRIPTS, alembic_config, upgrade
from argosy.store.servers import Peer
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, an_attempt, changed
from argosy.testing.conformance.store_subject import contents
from argosy.testing.postgres_server import PostgresServer
from argosy.testing.virtual_time import FixedClock, SimIds

HERE = Path(__file__).parent
NOW_MS = FixedClock().now_ms()


class Engines:
    """Empty databases of one kind."""

    def __init__(self, folder: Path, server: PostgresServer | None) -> None:
        self.folder, self.server, self.count = folder, server, 0

    def url(self) -> str:
        self.count += 1
        if self.server is not None:
            return self.server.url(self.server.make_database())
        return f"sqlite://{self.folder}/db{self.count}/argosy.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Engines:
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    return Engines(tmp_path, server)


@pytest.fixture
def connection(engines: Engines) -> Iterator[sa.Connection]:
    """To an empty database."""
    database = Database(engines.url())
    if database.path is not None:
        database.path.parent.mkdir(parents=True)
    with database._engine.connect() as made:
        yield made
    database.close()


def described(connection: sa.Connection) -> list[tuple[str, ...]]:
    """Everything that the engine knows about its tables, in its own words."""
    if connection.dialect.name == "sqlite":
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2"
        rows = connection.exec_driver_sql(query).all()
        return [(kind, name, table, _spaced(sql)) for kind, name, table, sql in rows]
    queries = (
        "SELECT 'column', table_name, column_name, data_type, is_nullable, coalesce(column_default, ''),"
        " coalesce(character_maximum_length, 0)::text"
        " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 2, 3",
        "SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 2",
        "SELECT 'constraint', conname, pg_get_constraintdef(oid), conrelid::regclass::text FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 2",
        "SELECT 'sequence', sequence_name FROM information_schema.sequences",
    )
    return [tuple(row) for query in queries for row in connection.exec_driver_sql(query)]


def _spaced(sql: str | None) -> str:
    return re.sub(r"\s+", " ", sql or "")


def test_migrations_and_tables_give_the_same_schema(engines: Engines) -> None:
    found = []
    for make in (upgrade, lambda c: schema.metadata.create_all(c)):
        database = Database(engines.url())
        if database.path is not None:
            database.path.parent.mkdir(parents=True)
        database.run(make, write=True)
        found.append(database.run(described))
        database.close()
    assert found[0] == found[1] and len(found[0]) > 20


def test_alembic_sees_no_difference(connection: sa.Connection) -> None:
    upgrade(connection)
    differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    # Alembic does not manage its own table
    names = [getattr(one[1], "name", "") for one in differences]
    if connection.dialect.name == "sqlite":  # nor does it know that some indexes are PostgreSQL's only
        names = [name for name in names if not name.endswith("_seq")]
    assert [name for name in names if name != schema.version.name] == []


def test_a_new_database_is_marked_with_the_newest_migration(connection: sa.Connection) -> None:
    scripts = ScriptDirectory.from_config(alembic_config(connection))
    assert scripts.get_heads() == [schema.HEAD]
    names = sorted(path.name[:4] for path in (SCRIPTS / "versions").glob("*.py"))
    assert names == [f"{number:04d}" for number in range(1, len(names) + 1)]
    for script in scripts.walk_revisions():
        assert script.revision == Path(script.path).name[:4]
    upgrade(connection)
    assert connection.execute(sa.select(schema.version.c.version_num)).scalars().all() == [schema.HEAD]


def test_migrations_are_frozen() -> None:
    """A migration that reads today's tables would be another one tomorrow."""
    for path in (SCRIPTS / "versions").glob("*.py"):
        assert "argosy" not in path.read_text(), path


# -- an upgrade -------------------------------------------------------------------------------------

_NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0099"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("workload", sa.Column("colour", sa.Text, nullable=False, server_default="grey"))
    op.execute("UPDATE workload SET colour = 'blue' WHERE live = 1")
    op.create_index("ix_workload_colour", "workload", ["colour"])
    {then}
"""


def _stored() -> list[str]:
    """A database of schema 0001 as it was once written, row by row."""
    text = (HERE / "stored_0001.sql").read_text()
    return [statement for statement in text.split(";\n") if statement.strip()]


def _load_stored(url: str) -> None:
    database = Database(url)
    if database.path is not None:
        database.path.parent.mkdir(parents=True)

    def work(connection: sa.Connection) -> None:
        command.upgrade(alembic_config(connection), "0001")
        connection.exec_driver_sql("DELETE FROM head")
        for statement in _stored():
            connection.exec_driver_sql(statement.replace("%", "%%") if database.is_postgres else statement)
        connection.execute(
            sa.text("INSERT INTO request_key (key, at_ms, reply) VALUES ('key-1', 5, :reply)"),
            {"reply": b"reply"},
        )

    database.run(work, write=True)
    database.close()


async def _check_stored(url: str, keys: Path) -> None:
    store = await Store.open(url, ids=SimIds(), clock=FixedClock(), keys=keys)
    snapshot = await store.snapshot()
    cluster = await store.find_cluster("train")
    assert cluster is not None and cluster.id == "clu-1" and cluster.rev == 2
    (job,) = snapshot.jobs_of("clu-1")
    assert (job.number, job.phase, job.detail) == (2, WorkloadPhase.RUNNING, "100% ok; 'quoted' ünï")
    assert [row.number for row in await store.load_jobs(host_id="clu-1")] == [2, 1]
    assert {type(row) for row in contents(snapshot).values()} == {Workload, Attempt, Claim, Node}
    assert await store.load_secrets("job-2") == {"TOKEN": "hunter2"}
    assert await store.load_key("key-1") == b"reply"
    assert [event.text for event in await store.load_events(subject="clu-1")] == ["made", "up"]
    assert snapshot.tenancy == Tenancy()  # which 0001 did not have
    assert await store.take_numbers("jobs/clu-1", 1) == 3
    seq = store.seq
    await store.commit([changed(job, detail="new")], events=[])
    assert store.seq == seq + 1
    (tree,) = await store.commit([Tenancy(queues=(Queue(path="acme"),))])
    assert (await store.snapshot()).tenancy == tree
    await store.close()


def test_a_stored_database_of_0001_is_read(engines: Engines, tmp_path: Path) -> None:
    url = engines.url()
    _load_stored(url)
    asyncio.run(_check_stored(url, tmp_path / "keys"))


def test_an_older_database_is_upgraded_when_it_is_opened(engines: Engines, tmp_path: Path) -> None:
    url = engines.url()
    _load_stored(url)
    further = tmp_path / "further"
    further.mkdir()
    (further / "0099_colours.py").write_text(_NEXT.format(head=schema.HEAD, then=""))
    for _ in range(2):  # the second time there is nothing to do
        database = Database(url, further=further)
        database.open(now_ms=NOW_MS)
        colours = database.run(
            lambda c: c.exec_driver_sql("SELECT id, colour FROM workload ORDER BY id").all()
        )
        assert [tuple(row) for row in colours] == [("clu-1", "blue"), ("job-1", "grey"), ("job-2", "blue")]
        database.close()
    if database.backups is not None:
        assert [path.name for path in database.backups.iterdir()] == ["argosy-schema-0001.db"]
        asyncio.run(_check_stored(f"sqlite://{database.backups}/argosy-schema-0001.db", tmp_path / "keys"))
    # for this version it is now too new
    with pytest.raises(ArgosyError) as caught:
        asyncio.run(Store.open(url, ids=SimIds(), clock=FixedClock()))  # type: ignore[arg-type]
    assert caught.value.code == "store-newer" and "0099" in caught.value.what


def test_an_upgrade_that_fails_changes_nothing(engines: Engines, tmp_path: Path) -> None:
    url = engines.url()
    _load_stored(url)
    further = tmp_path / "further"
    further.mkdir()
    broken = _NEXT.format(head=schema.HEAD, then='op.execute("DELETE FROM nowhere")')
    (further / "0099_colours.py").write_text(broken)
    database = Database(url, further=further)
    with pytest.raises(ArgosyError):
        database.open(now_ms=NOW_MS)
    database.close()
    asyncio.run(_check_stored(url, tmp_path / "keys"))


def test_many_servers_may_start_on_an_empty_database(engines: Engines) -> None:
    url = engines.url()

    async def main() -> None:
        stores = await asyncio.gather(*(Store.open(url, ids=SimIds(), clock=FixedClock()) for _ in range(5)))
        for n, store in enumerate(stores):
            await store.commit([a_job(number=n)])
        assert len((await stores[-1].snapshot()).workloads) == 5
        for store in stores:
            await store.close()

    asyncio.run(main())


# -- rows of other versions -------------------------------------------------------------------------

ROWS: list[schema.Stored] = [
    *(a_cluster(), a_job(), a_claim(), a_node(gpus=2), an_attempt(reason=Reason.PREEMPTED)),
    Tenancy(queues=(Queue(path="acme", limit={"gpus": 8000}),)),
]


def _as_dict(row: schema.Stored) -> dict[str, object]:
    return msgspec.json.decode(msgspec.json.encode(row), type=dict[str, object])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_fields_of_the_future_are_dropped_and_those_of_the_past_have_defaults(row: schema.Stored) -> None:
    body = _as_dict(row) | {"colour": "blue", "reason": "a-reason-of-tomorrow"}
    body.pop("rev", None)
    read = schema.parse_row(type(row), msgspec.json.encode(body).decode())
    assert read == (row if isinstance(row, Workload | Claim | Node | Tenancy) else changed(row, reason=None))
    if isinstance(row, Workload):
        read = schema.parse_row(Workload, msgspec.json.encode(body | {"outcome": "abducted"}).decode())
        assert read == row


def test_what_cannot_be_understood_is_named() -> None:
    for name, value in (("phase", "dreaming"), ("spec", {"kind": "orchestra"}), ("created_ms", "noon")):
        body = _as_dict(a_job(id="job-77")) | {name: value}
        with pytest.raises(ArgosyError) as caught:
            schema.parse_row(Workload, msgspec.json.encode(body).decode())
        assert caught.value.code == "store-newer" and "job-77" in caught.value.what
    for damaged in ("", "null", "[]", "{", '{"id": "job-1"', "\x00"):
        with pytest.raises(ArgosyError) as caught:
            schema.parse_row(Workload, damaged)
        assert caught.value.code == "store-corrupt"


def test_migrations_travel_in_the_wheel(tmp_path: Path) -> None:
    """What is imported from elsewhere finds its scripts beside itself."""
    code = "from argosy.store.migrate import SCRIPTS; print(*sorted(p.name for p in SCRIPTS.rglob('*') if p.is_file()))"  # noqa: E501
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert {"env.py", "script.py.mako", "0001_initial.py"} <= set(names.stdout.split())


def test_sqlite_uses_the_indexes(tmp_path: Path) -> None:
    """The questions that are asked all day do not read whole tables."""
    database = Database(f"sqlite://{tmp_path}/argosy.db")
    database.open(now_ms=NOW_MS)
    database.close()
    connection = sqlite3.connect(tmp_path / "argosy.db")
    questions = {
        "SELECT body FROM workload WHERE live = 1": "ix_workload_live",
        "SELECT body FROM workload WHERE host_id = 'c' AND kind = 'job' ORDER BY number DESC": "ix_workload_number",  # noqa: E501
        "SELECT body FROM workload WHERE live = 1 AND host_id || '' = 'c' ORDER BY number DESC": "ix_workload_live",  # noqa: E501
        "SELECT body FROM workload WHERE named = 1 AND kind = 'cluster' AND project = 'p' AND name = 'n'": "ix_workload_name",  # noqa: E501
        "SELECT body FROM claim WHERE live = 1 OR ended_ms >= 5": "ix_claim_live",
        "SELECT * FROM event WHERE subject = 's' AND seq > 5 ORDER BY seq": "ix_event_subject",
        "SELECT body FROM attempt WHERE workload_id = 'w' ORDER BY number": "ix_attempt_workload",
    }
    for query, index in questions.items():
        plan = " ".join(str(row[3]) for row in connection.execute("EXPLAIN QUERY PLAN " + query))
        assert index in plan or "claim" in query, f"{query}: {plan}"
    connection.close()


# -- two versions side by side -----------------------------------------------------------------------

_ADDS = re.compile(
    r"CREATE (UNIQUE )?(TABLE|INDEX)|ALTER TABLE \w+ ADD COLUMN|INSERT INTO|CREATE TRIGGER|CREATE FUNCTION"
    r"|UPDATE alembic_version|SELECT|PRAGMA|COMMIT"
)


def test_the_last_migration_only_adds(engines: Engines) -> None:
    """So servers of the version before go on while the first new one has begun (`schema.LEAST`)."""
    steps = [f"{number:04d}" for number in range(int(schema.LEAST), int(schema.HEAD) + 1)]
    assert len(steps) <= 2, "no more than one step lies between versions that work side by side"
    database = Database(engines.url())
    if database.path is not None:
        database.path.parent.mkdir(parents=True)
    database.run(lambda c: command.upgrade(alembic_config(c), schema.LEAST), write=True)
    said: list[str] = []

    def work(connection: sa.Connection) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        before = described(connection)
        sa.event.listen(connection, "before_cursor_execute", lambda *told: said.append(told[2]))
        upgrade(connection)
        return before, described(connection)

    before, after = database.run(work, write=True)
    database.close()
    assert said and [each for each in said if not _ADDS.match(each.strip())] == []
    lost = [each for each in before if each not in after]
    assert not lost, f"what the version before has is there as it was: {lost}"


def _open(url: str, *, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a version that knows the schema up to `head`."""
    monkeypatch.setattr(schema, "HEAD", head)
    monkeypatch.setattr(schema, "LEAST", f"{int(head) - 1:04d}")
    database = Database(url)
    try:
        database.open(now_ms=NOW_MS)
    finally:
        database.close()


def test_the_version_before_starts_beside_the_new_one_and_older_ones_do_not(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, (head, before, oldest) = engines.url(), (f"{int(schema.HEAD) - back:04d}" for back in range(3))
    Database(url).open(now_ms=NOW_MS)
    _open(url, head=before, monkeypatch=monkeypatch)
    with pytest.raises(ArgosyError) as caught:
        _open(url, head=oldest, monkeypatch=monkeypatch)
    assert caught.value.code == "store-newer"
    assert f"schema {head}, this one knows {oldest}" in caught.value.what and caught.value.hint


@pytest.mark.postgres
def test_the_schema_does_not_leave_a_running_server_two_steps_behind(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.url(postgres_server.make_database())
    old = Peer(id="srv-1", name="box", version="0.8", schema=schema.HEAD)

    async def tell(silent_ms: int = 0) -> None:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        await store.servers.tell(old)
        await store.close()

    asyncio.run(tell())
    head = int(schema.HEAD)
    further = tmp_path / "further"
    further.mkdir()
    for number in (head + 1, head + 2):
        (further / f"{number:04d}_more.py").write_text(
            f'revision = "{number:04d}"\ndown_revision = "{number - 1:04d}"\n\ndef upgrade() -> None: ...\n'
        )
    monkeypatch.setattr(schema, "LEAST", f"{head + 1:04d}")
    database = Database(url, further=further)
    with pytest.raises(ArgosyError) as caught:
        database.open(now_ms=NOW_MS)
    assert caught.value.code == "wrong-state" and "`box` (Argosy 0.8) still runs" in caught.value.what
    assert caught.value.hint and "the version in between" in caught.value.hint

    monkeypatch.setattr(schema, "LEAST", f"{head:04d}")  # one step: both go on
    database.open(now_ms=NOW_MS)
    database.close()
