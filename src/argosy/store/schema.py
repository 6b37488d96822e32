"""The tables: indexed columns to search by, and `body`, the row itself as JSON.

A body is read leniently (unknown fields are dropped, missing ones have their defaults), so a new field of a
row needs no migration; a new column or index does: see `migrations/` and the README.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar, get_args

import msgspec
import sqlalchemy as sa

from argosy.model.budget import Budget, budget_id
from argosy.model.entry import Entry
from argosy.model.errors import ArgosyError
from argosy.model.kinds import KINDS, kind_of
from argosy.model.phases import Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Event, Node, Row, Workload, WorkloadColumns
from argosy.model.tenancy import TENANCY_ID, Tenancy

#: Everything that has a revision.
Stored = Row | Tenancy | Budget | Entry

#: The newest migration. A database that says more was written by a newer Argosy.
HEAD: Final = "0007"
#: The oldest version of the schema whose servers may go on, and start, beside it: what came since only adds.
#: Never more than one step back from HEAD: then a server and the one that takes its place can work together.
LEAST: Final = "0006"

metadata: Final = sa.MetaData()

Columns = dict[str, Any]  # Any: the values of one row's columns, by name, as drivers take them


def _table(name: str, *columns: sa.Column[Any] | sa.Index) -> sa.Table:
    return sa.Table(name, metadata, *columns)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _order(name: str) -> sa.Column[int]:
    """A primary key that we count ourselves; in SQLite the row's own number."""
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> sa.Index:
    return sa.Index(name, *columns, unique=unique, sqlite_where=sa.text(where))


@sa.event.listens_for(metadata, "before_create")
def _partial_on_postgres(_: sa.MetaData, connection: sa.Connection, **__: Any) -> None:
    """Said here and not with the index, as SQLAlchemy would load all it has for PostgreSQL to check it: 3 MB
    and a twentieth of the time that a server needs to start."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.tables.values():
        for index in table.indexes:
            if (clause := index.dialect_options["sqlite"]["where"]) is not None:
                index.dialect_options["postgresql"]["where"] = clause


def _changes(name: str) -> sa.Index:
    """What was written since a commit. SQLite has one writer, who knows: there it would only cost (a
    third)."""
    return sa.Index(name, "seq").ddl_if(dialect="postgresql")


def _versioned() -> tuple[sa.Column[Any], ...]:
    """`rev`: times written. `seq`: the commit that wrote it last. `live`: 1 until its last phase."""
    return (_key("id"), _number("rev"), _number("seq"), _number("live"), _text("phase"))


#: One row. Every commit locks it first, so that the order of `seq` is the order of commits.
head: Final = _table(
    "head",
    _order("id"),
    _number("seq"),
    _number("event_seq"),
    _number("checked_ms"),  # when the file was last read from end to end (SQLite)
)

workload: Final = _table(
    "workload",
    *_versioned(),
    _text("kind"),
    _text("project"),
    _text("name"),
    _number("named"),  # 1: its name is unique among the live ones of its kind and project
    _text("parent_id"),  # whose life it shares; "" for none
    _text("host_id"),  # on whose nodes it runs; "" for none
    _number("number"),
    _number("created_ms"),
    _number("ended_ms"),  # 0 while live
    _text("body"),
    _changes("ix_workload_seq"),
    sa.Index("ix_workload_number", "host_id", "number"),
    _partial("ix_workload_parent", "parent_id", where="parent_id <> ''"),
    _partial("ix_workload_live", "id", where="live = 1"),
    _partial("ix_workload_ended", "ended_ms", where="live = 0"),
    _partial("ix_workload_name", "kind", "project", "name", "id", where="named = 1"),
    _partial("uq_workload_name", "kind", "project", "name", where="named = 1 AND live = 1", unique=True),
)

attempt: Final = _table(
    "attempt",
    *_versioned(),
    _text("workload_id"),
    _number("number"),
    _text("body"),
    _changes("ix_attempt_seq"),
    sa.Index("ix_attempt_workload", "workload_id", "number"),
    _partial("ix_attempt_live", "id", where="live = 1"),
)

claim: Final = _table(
    "claim",
    *_versioned(),
    _text("workload_id"),
    _number("requested_ms"),
    _number("ended_ms"),
    _number("spent_ms"),
    _number("cost_micro_usd"),
    _text("body"),
    _changes("ix_claim_seq"),
    sa.Index("ix_claim_workload", "workload_id"),
    _partial("ix_claim_live", "id", where="live = 1"),
    _partial("ix_claim_ended", "ended_ms", where="live = 0"),
)

node: Final = _table(
    "node",
    *_versioned(),
    _text("claim_id"),
    _text("workload_id"),
    _text("body"),
    _changes("ix_node_seq"),
    sa.Index("ix_node_claim", "claim_id"),
    sa.Index("ix_node_workload", "workload_id"),
    _partial("ix_node_live", "id", where="live = 1"),
)

#: Queues, groups, presets, policy: one row, so that a change is checked against all of it.
tenancy: Final = _table("tenancy", _key("id"), _number("rev"), _number("seq"), _number("live"), _text("body"))

#: What projects may spend in a month.
budget: Final = _table("budget", _key("id"), _number("rev"), _number("seq"), _number("live"), _text("body"))

#: Who may ask over TCP: SHA-256 of tokens, never a token.
token: Final = _table("token", _key("name"), _text("sha256"), _text("scope"), _number("created_ms"))

#: Organisations, projects, accounts, roles, credentials: see `model.people`.
directory: Final = _table(
    "directory",
    *(_key("id"), _number("rev"), _number("seq"), _number("live")),
    *(_text("kind"), _text("uniq"), _text("body")),
    _changes("ix_directory_seq"),
    _partial("ix_directory_live", "id", where="live = 1"),
    _partial("uq_directory", "uniq", where="uniq <> ''", unique=True),
)

#: When credentials were last used, by the minute.
last_use: Final = _table("last_use", _key("id"), _number("at_ms"))

#: Who did what. Rows are only added; triggers refuse everything else.
audit: Final = _table(
    "audit",
    *(_order("seq"), _number("at_ms"), _text("who"), _text("via"), _text("credential"), _text("address")),
    *(_text("action"), _text("target"), _text("outcome"), _text("request"), _text("changes")),
    *(_text("prev"), _text("hash")),
    sa.Index("ix_audit_at", "at_ms"),
)
#: Up to which row the audit log was forgotten, and that row's hash.
audit_kept: Final = _table("audit_kept", _order("id"), _number("seq"), _text("hash"))

#: By dialect. The audit log is only added to, but for its beginning up to the row in `audit_kept`.
AUDIT_GUARDS: Final = {
    "sqlite": (
        "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN"
        " SELECT RAISE(ABORT, 'the audit log is only added to'); END",
        "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit"
        " WHEN OLD.seq > coalesce((SELECT max(seq) FROM audit_kept), 0) BEGIN"
        " SELECT RAISE(ABORT, 'the audit log is only added to'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF TG_OP = 'DELETE' THEN IF OLD.seq <= coalesce((SELECT max(seq) FROM audit_kept), 0)"
        " THEN RETURN OLD; END IF; END IF;"
        " RAISE EXCEPTION 'the audit log is only added to'; END $$",
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit"
        " FOR EACH ROW EXECUTE FUNCTION audit_guard()",
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_guard()",
    ),
}


def _guard_audit(table: sa.Table, connection: sa.Connection, **_: Any) -> None:
    for statement in AUDIT_GUARDS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


sa.event.listen(audit_kept, "after_create", _guard_audit)

event: Final = _table(
    "event",
    _order("seq"),
    _number("at_ms"),
    _text("subject"),
    _text("code"),
    _text("text"),
    sa.Index("ix_event_subject", "subject", "seq"),
)

#: What people are to be told of events, until it has reached them.
outbox: Final = _table(
    "outbox", _order("seq"), _number("due_ms"), _text("body"), sa.Index("ix_outbox_due", "due_ms")
)

#: Values of secrets, sealed, while their workload lives; and the name of the key that seals them.
secret: Final = _table("secret", _key("workload_id"), _text("body"))
secret_key: Final = _table("secret_key", _order("id"), _text("name"))

#: What a request with an idempotency key was answered.
request_key: Final = _table(
    "request_key", _key("key"), _number("at_ms"), sa.Column("reply", sa.LargeBinary, nullable=False)
)

counter: Final = _table("counter", _key("scope"), _number("value"))

lease: Final = _table("lease", _key("name"), _text("holder"), _number("until_ms"))

#: Servers that share this database, and when each said last that it is there; 0: it has ended.
server: Final = _table("server", _key("id"), _number("seen_ms"), _text("body"))
#: On which server's own machine a claim is.
placed: Final = _table("placed", _key("claim_id"), _text("server"))
#: Leases that fence: `number` counts their holders.
term: Final = _table("term", _key("name"), _text("holder"), _number("number"), _number("until_ms"))

#: Facts about this database itself: `store`, its id, which everything that it orders outside is tagged with.
identity: Final = _table("identity", _key("name"), _text("value"))

#: Alembic's own table, here so that a new database needs no Alembic.
version: Final = sa.Table(
    "alembic_version",
    metadata,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

TABLES: Final[dict[type, sa.Table]] = {
    Workload: workload,
    Attempt: attempt,
    Claim: claim,
    Node: node,
    Tenancy: tenancy,
    Budget: budget,
    Entry: directory,
}


def table_of(kind: type) -> sa.Table:
    """The table of a type of rows."""
    return TABLES[home_of(kind)]


def home_of(kind: type) -> type:
    """The type under which rows are read: all entries are of one."""
    return Entry if issubclass(kind, Entry) else kind


def columns_of(row: Stored, *, now_ms: int) -> Columns:
    """The row as columns, but for `seq`, which the commit gives. Raises ValueError for what no database
    holds."""
    found: Columns = {
        "id": row.id,
        "rev": row.rev,
        "live": int(row.is_live),
        "body": msgspec.json.encode(row).decode(),
    }
    if isinstance(row, Tenancy):
        if row.id != TENANCY_ID:
            raise ValueError(f"there is one tenancy, `{TENANCY_ID}`, and this is `{row.id}`")
        return found
    if isinstance(row, Entry):
        config = row.__struct_config__
        return {**found, "kind": config.tag, "uniq": row.unique}
    if isinstance(row, Budget):
        if row.id != budget_id(row.project):
            raise ValueError(f"{row.id} is not the budget of `{row.project}`")
        return found
    found["phase"] = row.phase.value
    if isinstance(row, Workload):
        found |= {
            "kind": row.kind,
            "project": row.project,
            "name": row.name,
            "host_id": row.host_id or "",
            "parent_id": row.parent_id or "",
            "named": int(kind_of(row).named),
            "number": row.number,
            "created_ms": row.created_ms,
            "ended_ms": 0 if row.is_live else row.ended_ms or now_ms,
        }
    elif isinstance(row, Attempt):
        found |= {"workload_id": row.workload_id, "number": row.number}
    elif isinstance(row, Claim):
        found |= {
            "workload_id": row.workload_id,
            "requested_ms": row.requested_ms,
            "ended_ms": 0 if row.is_live else row.gone_ms or now_ms,
            "spent_ms": row.spent_ms,
            "cost_micro_usd": row.cost_micro_usd,
        }
    else:
        found |= {"claim_id": row.claim_id, "workload_id": row.workload_id}
    for name, value in found.items():
        if type(value) is str and "\0" in value:  # PostgreSQL's text holds none; in a body it is escaped
            raise ValueError(f"{name} of {row.id!r} holds a NUL character")
    return found


def columns_of_event(one: Event, *, seq: int) -> Columns:
    # PostgreSQL's text holds no NUL, and texts quote what programs print
    return {
        "seq": seq,
        "at_ms": one.at_ms,
        "subject": one.subject,
        "code": one.code,
        "text": one.text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode(),
    }


class _StoredWorkload(WorkloadColumns, frozen=True, kw_only=True):
    """A workload of any kind: only the registry knows what its kind's own part looks like."""

    spec: msgspec.Raw
    status: msgspec.Raw


_SHARED: Final = WorkloadColumns.__struct_fields__
_STORED: Final = msgspec.json.Decoder(_StoredWorkload)


def _decode_workload(body: str | bytes) -> Workload:
    found = _STORED.decode(body)
    kind = KINDS.get(found.kind)
    if kind is None:
        raise msgspec.ValidationError(f"there is no kind of workload `{found.kind}`")
    return Workload(
        spec=msgspec.json.decode(found.spec, type=kind.spec),
        status=msgspec.json.decode(found.status, type=kind.status),
        **{name: getattr(found, name) for name in _SHARED},
    )


class _AnyKind(msgspec.Struct):
    """What entries of every version have."""

    kind: str
    id: str
    created_ms: int
    removed_ms: int = 0
    rev: int = 0


@functools.cache
def _entries() -> tuple[msgspec.json.Decoder[Entry], frozenset[object]]:
    """What reads entries, and the kinds that there are. Loaded with the first entry."""
    from argosy.model.people import AnyEntry

    kinds = frozenset(each.__struct_config__.tag for each in get_args(AnyEntry))
    return msgspec.json.Decoder(AnyEntry), kinds


def _decode_entry(body: str | bytes) -> Entry:
    """An entry. One of a kind that only a newer version knows is an `Entry` and no more: another server of
    that version may write it while this one still runs."""
    decoder, kinds = _entries()
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        found = msgspec.json.decode(body, type=_AnyKind)
        if found.kind in kinds:
            raise
    return Entry(id=found.id, created_ms=found.created_ms, removed_ms=found.removed_ms, rev=found.rev)


R = TypeVar("R", bound=Stored)
_DECODE: Final[dict[type, Callable[[str | bytes], Any]]] = {
    kind: msgspec.json.Decoder(kind).decode for kind in TABLES if kind not in (Workload, Entry)
} | {Workload: _decode_workload, Entry: _decode_entry}


#: Told to people but decided by nobody: better dropped than a server that does not start.
_OPTIONAL: Final[dict[str, Any]] = {"reason": Reason | None, "outcome": Outcome | None}


def parse_row(kind: type[R], body: str) -> R:
    """The row of a body. A reason or outcome that this version does not know is dropped.

    Raises ArgosyError: `store-corrupt` when it is no JSON, `store-newer` when it cannot be understood."""
    decode = _DECODE[home_of(kind)]
    try:
        row: R = decode(body)
        return row
    except msgspec.DecodeError:
        pass
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise ArgosyError(
            "store-corrupt", f"a row of table `{table_of(kind).name}` is damaged: {error}"
        ) from None
    known = {
        name: value for name, value in fields.items() if name not in _OPTIONAL or _is(_OPTIONAL[name], value)
    }
    try:
        row = decode(msgspec.json.encode(known))
        return row
    except msgspec.ValidationError as error:
        id = bytes(fields.get("id", msgspec.Raw(b"?"))).decode()
        raise ArgosyError("store-newer", f"row {id} was written by another version: {error}") from None


def _is(kind: Any, value: msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def read_row(connection: sa.Connection, kind: type[R], id: str) -> R | None:
    """The row of this kind, also a finished one."""
    table = table_of(kind)
    body = connection.execute(sa.select(table.c.body).where(table.c.id == id)).scalar()
    return None if body is None else parse_row(kind, body)


def read_any(connection: sa.Connection, id: str) -> Row | None:
    """The row with this id, of whichever kind."""
    for kind in TABLES:
        row = read_row(connection, kind, id)
        if isinstance(row, Row):
            return row
    return None


def was_there(table: sa.Table, since_ms: int) -> sa.ColumnElement[bool]:
    """Is live, or ended at `since_ms` or later."""
    return sa.or_(table.c.live == 1, table.c.ended_ms >= since_ms)


#: What the request with an idempotency key was answered.
REPLY: Final = sa.select(request_key.c.reply).where(request_key.c.key == sa.bindparam("key_"))
