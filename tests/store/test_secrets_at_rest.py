"""Secrets are nowhere in clear: not in tables, logs of the database, free pages or backups."""

from __future__ import annotations

import asyncio
import base64
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from argosy.model.errors import ArgosyError
from argosy.model.phases import WorkloadPhase
from argosy.store import Store, schema
from argosy.store.database import Database
from argosy.store.secrets import GivenKeys, Keyring
from argosy.testing.builders import a_job, changed
from argosy.testing.virtual_time import FixedClock, SimIds

VALUE = "correct horse battery staple"


def open_at(folder: Path, keys: Path | Keyring | None = None) -> Store:
    url = f"sqlite://{folder}/argosy.db"
    return asyncio.run(Store.open(url, ids=SimIds(), clock=FixedClock(), inline=True, keys=keys))


def holders(folder: Path, value: str = VALUE) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]


def run(*calls: object) -> list[object]:
    async def main() -> list[object]:
        return [await call for call in calls]  # type: ignore[misc]

    return asyncio.run(main())


def test_the_state_folder_holds_no_value(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    job = a_job(id="job-1")
    (written,) = asyncio.run(store.commit([job], secrets={"job-1": {"TOKEN": VALUE}}))
    run(store.backup_if_due(), store.backup(tmp_path / "copy.db"))
    assert holders(tmp_path) == []  # while it runs: the table, its log, the backups
    assert asyncio.run(store.load_secrets("job-1")) == {"TOKEN": VALUE}
    key = tmp_path / "secrets.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not (tmp_path / "backups" / key.name).exists()
    asyncio.run(store.commit([changed(written, phase=WorkloadPhase.FINISHED)]))
    assert asyncio.run(store.load_secrets("job-1")) == {}
    asyncio.run(store.close())
    assert holders(tmp_path) == []


def test_what_an_older_version_wrote_in_clear_is_sealed_at_the_first_start(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    asyncio.run(store.commit([a_job(id="job-1")]))
    asyncio.run(store.close())
    database = Database(f"sqlite://{tmp_path}/argosy.db")
    row = {"workload_id": "job-1", "body": f'{{"TOKEN":"{VALUE}"}}'}
    database.run(lambda c: c.execute(schema.secret.insert(), row), write=True)
    database.backup(tmp_path / "backups" / "argosy-20200101.db")
    database.backup(tmp_path / "backups" / "argosy-schema-0001.db")
    database.close()
    assert len(holders(tmp_path)) >= 3
    store = open_at(tmp_path)
    assert holders(tmp_path) == []
    assert asyncio.run(store.load_secrets("job-1")) == {"TOKEN": VALUE}
    asyncio.run(store.close())
    restored = tmp_path / "restored"
    restored.mkdir()
    (tmp_path / "backups" / "argosy-20200101.db").rename(restored / "argosy.db")
    store = open_at(restored, tmp_path / "secrets.key")
    assert asyncio.run(store.load_secrets("job-1")) == {"TOKEN": VALUE}
    asyncio.run(store.close())


def test_without_the_key_nothing_is_told_and_nothing_is_sealed_with_another(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    asyncio.run(store.commit([a_job(id="job-1")], secrets={"job-1": {"TOKEN": VALUE}}))
    asyncio.run(store.close())
    store = open_at(tmp_path, tmp_path / "other" / "key")
    for call in (store.load_secrets("job-1"), store.commit(secrets={"job-1": {"A": "1"}})):
        with pytest.raises(ArgosyError) as caught:
            asyncio.run(call)  # type: ignore[arg-type]
        assert caught.value.code == "forbidden" and "ARGOSY_KEY_FILE" in caught.value.hint
    asyncio.run(store.close())


def test_a_new_key_seals_what_is_there(tmp_path: Path) -> None:
    store = open_at(tmp_path)
    asyncio.run(store.commit([a_job(id="job-1")], secrets={"job-1": {"TOKEN": VALUE}}))
    asyncio.run(store.backup(tmp_path / "before.db"))
    other = open_at(tmp_path)  # as `argosy server key` does while the server runs
    name, count = asyncio.run(other.rotate_key())
    assert count == 1
    asyncio.run(other.close())
    assert asyncio.run(store.load_secrets("job-1")) == {"TOKEN": VALUE}
    asyncio.run(store.commit(secrets={"job-1": {"TOKEN": "next"}}))
    body = store._database.run(lambda c: c.execute(sa.select(schema.secret.c.body)).scalar_one())
    assert body.startswith(f"sealed:{name}:")
    asyncio.run(store.close())
    # the old key still opens the older copy; with the new one alone it does not
    key = tmp_path / "secrets.key"
    assert len(key.read_text().split()) == 2
    for lines, expected in ((key.read_text().split(), VALUE), (key.read_text().split()[1:], None)):
        folder = tmp_path / f"restored{len(lines)}"
        folder.mkdir()
        (folder / "argosy.db").write_bytes((tmp_path / "before.db").read_bytes())
        (folder / "secrets.key").write_text("\n".join(lines))
        restored = open_at(folder)
        if expected is None:
            with pytest.raises(ArgosyError):
                asyncio.run(restored.load_secrets("job-1"))
        else:
            assert asyncio.run(restored.load_secrets("job-1")) == {"TOKEN": expected}
        asyncio.run(restored.close())


def test_a_seal_belongs_to_its_owner_and_notices_changes() -> None:
    ring = Keyring(None)
    name = ring.add()
    body = ring.seal(name, "job-1", VALUE)
    assert ring.unseal("job-1", body) == VALUE and ring.seal(name, "job-1", VALUE) != body
    raw = bytearray(base64.b64decode(body.rpartition(":")[2]))
    raw[-1] ^= 1
    for owner, changed_body in (
        ("job-2", body),
        ("job-1", f"sealed:{name}:{base64.b64encode(raw).decode()}"),
        ("job-1", f"sealed:{name}:short"),
    ):
        with pytest.raises(ArgosyError) as caught:
            ring.unseal(owner, changed_body)
        assert caught.value.code == "store-corrupt" and VALUE not in str(caught.value)


def test_a_damaged_key_file_says_how_a_line_looks(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hello\n")
    with pytest.raises(ArgosyError) as caught:
        Keyring(tmp_path / "key").newest()
    assert caught.value.code == "store-corrupt" and str(tmp_path / "key") in caught.value.what


def test_cryptography_is_loaded_with_the_first_secret() -> None:
    code = "import argosy.store.store, argosy.server.run, sys; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_keys_that_somebody_else_keeps(tmp_path: Path) -> None:
    """From a command or the environment: on no disk of ours, asked for when needed, rotated there."""
    made = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
    there, asked = [made[0]], []

    def read() -> str:
        asked.append(1)
        return "\n".join(there)

    store = open_at(tmp_path, GivenKeys("ARGOSY_KEY_COMMAND", read))
    assert asked == [], "nobody is asked before the first secret"
    asyncio.run(store.commit([a_job(id="job-1")], secrets={"job-1": {"TOKEN": VALUE}}))
    assert asyncio.run(store.load_secrets("job-1")) == {"TOKEN": VALUE} and len(asked) == 1
    assert (
        holders(tmp_path) == []
        and holders(tmp_path, made[0]) == []
        and not (tmp_path / "secrets.key").exists()
    )
    there.append(made[1])
    name, count = asyncio.run(store.rotate_key())
    assert count == 1 and len(asked) == 2
    asyncio.run(store.close())
    there.pop(0)  # the old one is needed no more
    store = open_at(tmp_path, GivenKeys("ARGOSY_KEY_COMMAND", read))
    assert asyncio.run(store.load_secrets("job-1")) == {"TOKEN": VALUE}
    asyncio.run(store.close())
    store = open_at(tmp_path, GivenKeys("ARGOSY_KEYS", lambda: made[0]))
    with pytest.raises(ArgosyError, match=f"sealed with the key {name}, which is not in ARGOSY_KEYS"):
        asyncio.run(store.load_secrets("job-1"))
    asyncio.run(store.close())


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "gives no key"), ("no key", "a line is no base64"), ("c2hvcnQ=", "a key has 32 bytes")],
)
def test_keys_that_are_none_are_told_without_them(tmp_path: Path, text: str, why: str) -> None:
    store = open_at(tmp_path, GivenKeys("ARGOSY_KEYS", lambda: text))
    with pytest.raises(ArgosyError, match=why) as told:
        asyncio.run(store.commit([a_job(id="job-1")], secrets={"job-1": {"TOKEN": VALUE}}))
    assert not text or text not in str(told.value)
    asyncio.run(store.close())


def test_where_keys_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from argosy.server.__main__ import _keys

    for name in ("ARGOSY_KEYS", "ARGOSY_KEY_FILE", "ARGOSY_KEY_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    assert _keys() is None
    monkeypatch.setenv("ARGOSY_KEYS", base64.b64encode(b"x" * 32).decode())
    given = _keys()
    assert isinstance(given, Keyring) and given.newest() and "ARGOSY_KEYS" not in os.environ
    key = tmp_path / "kept"
    key.write_text(base64.b64encode(b"y" * 32).decode())
    monkeypatch.setenv("ARGOSY_KEY_COMMAND", f"cat {key}")
    asked = _keys()
    assert isinstance(asked, Keyring) and asked.place == "ARGOSY_KEY_COMMAND" and asked.newest()
    monkeypatch.setenv("ARGOSY_KEY_COMMAND", "sh -c 'echo denied >&2; exit 4'")
    refused = _keys()
    assert isinstance(refused, Keyring)
    with pytest.raises(ArgosyError, match="ARGOSY_KEY_COMMAND cannot be read: it ended with 4: denied"):
        refused.newest()
    monkeypatch.setenv("ARGOSY_KEY_FILE", str(key))
    with pytest.raises(ArgosyError, match="say the same in three ways"):
        _keys()
