"""The commands of the pages about backup and restore, word for word, bring back what was there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from argosy.model.audit import Act, first_break
from argosy.store import Store
from argosy.testing.builders import a_cluster, a_job
from argosy.testing.conformance.store_subject import contents
from argosy.testing.postgres_server import PostgresServer
from argosy.testing.virtual_time import FixedClock, SimIds

DOCS = Path(__file__).parents[2] / "docs"


def the_command(page: str, pattern: str) -> str:
    """The one piece of code of a page that matches."""
    found = [
        each for each in re.findall(r"`([^`\n]+)`", (DOCS / page).read_text()) if re.match(pattern, each)
    ]
    assert len(set(found)) == 1, found
    return found[0]


def shell(command: str, folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stderr)


async def _fill(url: str, keys: Path) -> tuple[str, dict[str, object]]:
    store = await Store.open(url, ids=SimIds(), clock=FixedClock(), keys=keys)
    job = a_job(host_id="clu-1")
    await store.commit([a_cluster(id="clu-1", name="box"), job], secrets={job.id: {"TOKEN": "hunter2"}})
    for who in ("ann", "bob"):
        await store.commit(acts=[Act(at_ms=1, who=who, via="token", action="down")])
    found = contents(await store.snapshot())
    name = store.id
    await store.close()
    return name, dict(found)


async def _check(url: str, keys: Path, filled: tuple[str, dict[str, object]]) -> None:
    store = await Store.open(url, ids=SimIds(), clock=FixedClock(), keys=keys)
    assert (store.id, dict(contents(await store.snapshot()))) == filled
    job = next(iter((await store.snapshot()).jobs_of("clu-1")))
    assert await store.load_secrets(job.id) == {"TOKEN": "hunter2"}
    (seq, head), _ = await store.audit_ends()
    records = await store.load_acts()
    assert [each.act.who for each in records] == ["ann", "bob"]
    assert first_break(records, seq=seq, prev=head) == ""
    await store.close()


@pytest.mark.postgres
def test_postgresql_comes_back(postgres_server: PostgresServer, tmp_path: Path) -> None:
    env = {"PGHOST": str(postgres_server.folder), "PGUSER": "argosy", "PGDATABASE": "postgres"}
    postgres_server.execute("CREATE DATABASE argosy")
    url, keys = postgres_server.url("argosy"), tmp_path / "secrets.key"
    filled = asyncio.run(_fill(url, keys))
    shell(the_command("deploy.md", "pg_dump "), tmp_path, env)
    postgres_server.execute("DROP DATABASE argosy")
    shell(the_command("deploy.md", "createdb "), tmp_path, env)
    asyncio.run(_check(url, keys, filled))
    postgres_server.execute("DROP DATABASE argosy")


def test_a_damaged_file_is_replaced_by_its_copy(tmp_path: Path) -> None:
    home = tmp_path / ".argosy"
    url, keys = f"sqlite://{home}/argosy.db", home / "secrets.key"
    filled = asyncio.run(_fill(url, keys))

    async def copy() -> Path:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock(), keys=keys)
        made = await store.backup_if_due()
        await store.close()
        assert made is not None
        return made

    made = asyncio.run(copy())
    (home / "argosy.db").write_bytes(b"damaged")
    text = (DOCS / "operations.md").read_text()
    block = text.partition("## Backup and restore")[2].partition("```console\n")[2].partition("```")[0]
    lines = [line.removeprefix("$ ") for line in block.splitlines()]
    assert [line.partition(" ")[0] for line in lines] == ["mv", "cp", "argosy"]
    for line in lines[:2]:
        shell(re.sub(r"argosy-\d{8}\.db", made.name, line), tmp_path, {"HOME": str(tmp_path)})
    asyncio.run(_check(url, keys, filled))
    assert (home / "argosy.db.damaged").read_bytes() == b"damaged"
