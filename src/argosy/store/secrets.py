"""Secrets at rest: values are sealed with AES-256-GCM before the database sees them.

The key file is a folder's owner's alone (0600) and is in no backup: a copy of the database without it tells
nobody a secret. Each line of it is a key, in base64. The database names the key that seals (table
`secret_key`), so that servers which share it agree; older lines still open what they sealed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from argosy.model.errors import ArgosyError
from argosy.store import schema

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SEAL: Final = "sealed:"
_HOW: Final = "each line is 32 bytes in base64; `head -c 32 /dev/urandom | base64` makes one"


class Keyring:
    """The keys of one file (None: of this process alone). The file is made when the first secret is sealed,
    and read again when it changed. `cryptography` is imported with the first secret: it takes 80 ms."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, bytes] = {}

    @property
    def place(self) -> str:
        return str(self._path or "memory")

    def newest(self) -> str:
        """The name of the last key of the file; "" when there is none."""
        return next(reversed(self._read()), "")

    def holds(self, name: str) -> bool:
        return name in self._read()

    def add(self) -> str:
        """Make a key, keep it as the last line, and return its name. Raises ArgosyError `disk-full`."""
        key = _random_bytes(_KEY_BYTES)
        if self._path is None:
            self._keys[_name(key)] = key
            return _name(key)
        lines = [base64.b64encode(each).decode() for each in (*self._read().values(), key)]
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            draft.unlink(missing_ok=True)
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise ArgosyError(
                "disk-full",
                f"the key of secrets cannot be written to {self._path}: {error.strerror}",
                hint="ARGOSY_KEY_FILE names another file",
            ) from None
        return _name(key)

    def seal(self, name: str, owner: str, text: str) -> str:
        """`text` sealed with the key `name`; only with the same `owner` it opens again."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = _random_bytes(_NONCE_BYTES)
        hidden = AESGCM(self._key(name)).encrypt(nonce, text.encode("utf-8", "surrogatepass"), owner.encode())
        return f"{_SEAL}{name}:{base64.b64encode(nonce + hidden).decode()}"

    def unseal(self, owner: str, body: str) -> str:
        """The text of a sealed body. Raises ArgosyError `forbidden` without the key, `store-corrupt` when it
        was changed."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        name, _, hidden = body.removeprefix(_SEAL).partition(":")
        key = self._key(name)
        try:
            raw = base64.b64decode(hidden, validate=True)
            text = AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError):
            raise ArgosyError("store-corrupt", f"the secrets of {owner} are damaged") from None
        return text.decode("utf-8", "surrogatepass")

    def _key(self, name: str) -> bytes:
        found = self._read().get(name)
        if found is None:
            raise key_missing(name, self.place)
        return found

    def _read(self) -> dict[str, bytes]:
        """Keys by name, oldest first. Raises ArgosyError `store-corrupt`."""
        if self._path is None:
            return self._keys
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._keys, self._seen = _parsed(self._path.read_text("ascii", "replace")), seen
        except FileNotFoundError:
            self._keys, self._seen = {}, None
        except (OSError, ValueError) as error:
            raise ArgosyError(
                "store-corrupt", f"the key file {self._path} cannot be read: {error}", hint=_HOW
            ) from None
        return self._keys


class GivenKeys(Keyring):
    """Keys that are in no file of ours: they come from the environment, or from a command that asks whoever
    keeps them. `read`: their text, as in a key file; it may take a while and raise OSError."""

    def __init__(self, source: str, read: Callable[[], str]) -> None:
        super().__init__(None)
        self._source, self._text = source, read

    @property
    def place(self) -> str:
        return self._source

    def add(self) -> str:
        """The newest of the keys that are given now: a new one is made by who keeps them, not here."""
        self._keys = {}
        name = self.newest()
        if not name:
            raise ArgosyError("usage", f"{self._source} gives no key", hint=_HOW)
        return name

    def _read(self) -> dict[str, bytes]:
        if not self._keys:
            try:
                self._keys = _parsed(self._text())
            except (OSError, ValueError) as error:
                raise ArgosyError(
                    "store-corrupt", f"the keys of {self._source} cannot be read: {error}", hint=_HOW
                ) from None
        return self._keys


def _parsed(text: str) -> dict[str, bytes]:
    """Keys by name, oldest first. Raises ValueError, which tells nothing of them."""
    try:
        keys = [base64.b64decode(line, validate=True) for line in text.split()]
    except ValueError:
        raise ValueError("a line is no base64") from None
    if any(len(key) != _KEY_BYTES for key in keys):
        raise ValueError("a key has 32 bytes")
    return {_name(key): key for key in keys}


def key_missing(name: str, place: str) -> ArgosyError:
    return ArgosyError(
        "forbidden",
        f"the secrets of this database are sealed with the key {name}, which is not in {place}",
        hint="copy the key file of the server that wrote them there, or name it with ARGOSY_KEY_FILE",
    )


def is_sealed(body: str) -> bool:
    return body.startswith(_SEAL)


def sealed_with(body: str) -> str:
    """The name of the key of a sealed body."""
    return body.removeprefix(_SEAL).partition(":")[0]


def seal_copy(path: Path, seal: Callable[[str, str], str]) -> bool:
    """Seal what stands in clear in an older copy of the database. Whether there was any.

    Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'secret'").fetchall()
        found = connection.execute("SELECT workload_id, body FROM secret").fetchall() if tables else []
        clear = [(seal(owner, body), owner) for owner, body in found if not is_sealed(body)]
        if clear:
            connection.executemany("UPDATE secret SET body = ? WHERE workload_id = ?", clear)
            connection.execute("VACUUM")  # nothing of it stays in free pages
        return bool(clear)


def _random_bytes(count: int) -> bytes:
    """From the library that uses them: a key or a nonce must never come from dice that a test can load."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM.generate_key(bit_length=256)[:count]


def _name(key: bytes) -> str:
    """Tells keys apart, and nothing about them."""
    return hashlib.sha256(b"argosy key\0" + key).hexdigest()[:12]


class Vault:
    """The tables `secret` and `secret_key`, inside the caller's transaction."""

    def __init__(self, keys: Keyring | None) -> None:
        self._keyring = keys

    @property
    def keys(self) -> Keyring:
        if self._keyring is None:
            raise ArgosyError(
                "usage", "a shared database keeps secrets only with a key file", hint="set ARGOSY_KEY_FILE"
            )
        return self._keyring

    def keep(self, connection: sa.Connection, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """Write values by workload id, sealed."""
        name = self._current(connection)
        connection.execute(
            _KEEP,
            [
                {"owner": id, "body": self.keys.seal(name, id, msgspec.json.encode(dict(values)).decode())}
                for id, values in secrets.items()
            ],
        )

    def forget(self, connection: sa.Connection, ids: Sequence[str]) -> None:
        connection.execute(_FORGET, [{"id_": id} for id in ids])

    def load(self, connection: sa.Connection, owner: str) -> dict[str, str]:
        body = connection.execute(_LOAD, {"id_": owner}).scalar()
        if body is None:
            return {}
        text = self.keys.unseal(owner, body) if is_sealed(body) else body
        return msgspec.json.decode(text, type=dict[str, str])

    def seal_clear(self, connection: sa.Connection) -> bool:
        """Seal what an older version wrote in clear. Whether there was any."""
        found = connection.execute(sa.select(schema.secret)).all()
        clear = {row.workload_id: row.body for row in found if not is_sealed(row.body)}
        if clear:
            self.keep(connection, {id: msgspec.json.decode(body) for id, body in clear.items()})
        return bool(clear)

    def seal_copy(self, connection: sa.Connection, path: Path) -> bool:
        """Seal what stands in clear in an older copy of the database. Raises sqlite3.Error."""
        return seal_copy(path, lambda owner, body: self.keys.seal(self._current(connection), owner, body))

    def rotate(self, connection: sa.Connection) -> tuple[str, int]:
        """From now on a new key seals, also what is there. Its name, and how many rows it sealed; what no key
        opens stays as it is."""
        name = self.keys.add()
        connection.execute(sa.delete(schema.secret_key))
        connection.execute(schema.secret_key.insert(), {"id": 1, "name": name})
        rows = connection.execute(sa.select(schema.secret)).all()
        known = {
            row.workload_id: self.load(connection, row.workload_id)
            for row in rows
            if not is_sealed(row.body) or self.keys.holds(sealed_with(row.body))
        }
        if known:
            self.keep(connection, known)
        return name, len(known)

    def _current(self, connection: sa.Connection) -> str:
        """The key that seals, made with the first secret."""
        name: str | None = connection.execute(_CURRENT).scalar()
        if name is None:
            name = self.keys.newest() or self.keys.add()
            connection.execute(schema.secret_key.insert(), {"id": 1, "name": name})
        if not self.keys.holds(name):
            raise key_missing(name, self.keys.place)
        return name


_KEEP: Final = sa.text(
    "INSERT INTO secret (workload_id, body) VALUES (:owner, :body)"
    " ON CONFLICT (workload_id) DO UPDATE SET body = excluded.body"
)
_FORGET: Final = sa.delete(schema.secret).where(schema.secret.c.workload_id == sa.bindparam("id_"))
_LOAD: Final = sa.select(schema.secret.c.body).where(schema.secret.c.workload_id == sa.bindparam("id_"))
_CURRENT: Final = sa.select(schema.secret_key.c.name)
