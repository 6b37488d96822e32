"""Two versions over one database: what the newer one writes does not stop the older one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from argosy.model.errors import ArgosyError
from argosy.model.people import Entry, User
from argosy.store import Store, schema
from argosy.testing.virtual_time import FixedClock, SimIds

VERSIONS = Path(schema.__file__).parent / "migrations" / "versions"


def test_entries_of_a_kind_that_is_not_known_are_there_and_no_more(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'argosy.db'}"

    async def opened() -> Store:
        return await Store.open(url, ids=SimIds(), clock=FixedClock())

    async def main() -> None:
        store = await opened()
        await store.commit([User(id="usr-1", created_ms=1, name="ann")])
        await store.close()
        engine = sa.create_engine(url)
        with (
            engine.begin() as connection
        ):  # as a version writes it that has passkeys and another field of users
            [row] = connection.execute(sa.select(schema.directory)).mappings()
            body = msgspec.json.decode(row["body"])
            newer = {**row, "body": msgspec.json.encode({**body, "pronouns": "she"}).decode()}
            passkey = {"kind": "passkey", "id": "pky-1", "created_ms": 2, "key": "x", "rev": 1}
            second = {**row, "id": "pky-1", "kind": "passkey", "uniq": "passkey:x"}
            second |= {"body": msgspec.json.encode(passkey).decode(), "seq": row["seq"] + 1}
            connection.execute(sa.delete(schema.directory))
            connection.execute(schema.directory.insert(), [dict(newer), second])
        engine.dispose()
        store = await opened()
        people = (await store.snapshot()).people
        assert isinstance(people["usr-1"], User) and people["usr-1"].name == "ann"
        assert type(people["pky-1"]) is Entry and people["pky-1"].created_ms == 2
        await store.close()

    asyncio.run(main())


def test_a_damaged_entry_of_a_known_kind_is_told() -> None:
    with pytest.raises(ArgosyError):
        schema.parse_row(User, '{"kind": "user", "id": "usr-1", "created_ms": "soon"}')


def test_steps_from_the_sixth_on_only_add() -> None:
    """While an older version still runs: it must find its tables and columns as it knows them."""
    taken = re.compile(
        r"op\.(drop_\w+|alter_column|rename_table)|\b(DROP|RENAME|ALTER COLUMN)\b", re.IGNORECASE
    )
    for path in sorted(VERSIONS.glob("[0-9]*.py")):
        if path.name >= "0005":
            upgrade = path.read_text().partition("def upgrade")[2].partition("def downgrade")[0]
            assert taken.search(upgrade) is None, path.name
