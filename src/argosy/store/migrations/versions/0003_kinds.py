"""What only one kind of workload has moves into its spec and status; `host_id`, `parent_id`, `named`.

The database gets an id of its own.
"""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_AT_ONCE = 1000
_INDEXES = ("number", "live", "ended", "cluster")
_SPEC = {"cluster": ("autostop", "down_when_done"), "job": ()}
_STATUS = {
    "cluster": ("active_ms",),
    "job": ("attempts", "attempt_id", "errors", "recoveries", "evictions", "attained"),
}


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _partial(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    clause = sa.text(where)
    op.create_index(name, "workload", columns, unique=unique, sqlite_where=clause, postgresql_where=clause)


def upgrade() -> None:
    connection = op.get_bind()
    shared = connection.dialect.name == "postgresql"
    for name in _INDEXES:
        op.drop_index(f"ix_workload_{name}", "workload")
    op.drop_index("uq_workload_name", "workload")
    op.rename_table("workload", "workload_0002")
    if shared:
        op.drop_index("ix_workload_seq", "workload_0002")
        op.execute("ALTER INDEX workload_pkey RENAME TO workload_0002_pkey")
    made = op.create_table(
        "workload",
        *(sa.Column("id", sa.Text, primary_key=True), _number("rev"), _number("seq"), _number("live")),
        *(_text("phase"), _text("kind"), _text("project"), _text("name"), _number("named")),
        *(_text("parent_id"), _text("host_id"), _number("number")),
        *(_number("created_ms"), _number("ended_ms"), _text("body")),
    )
    old = sa.table("workload_0002", *(sa.column(name) for name in _OLD))
    after, users = "", dict[str, str]()
    while True:
        query = sa.select(old).where(old.c.id > after).order_by(old.c.id).limit(_AT_ONCE)
        rows = connection.execute(query).mappings().all()
        if not rows:
            break
        connection.execute(made.insert(), [_lifted(dict(row), users) for row in rows])
        after = rows[-1]["id"]
    op.drop_table("workload_0002")
    op.create_index("ix_workload_number", "workload", ["host_id", "number"])
    _partial("ix_workload_live", ["id"], "live = 1")
    _partial("ix_workload_ended", ["ended_ms"], "live = 0")
    _partial("ix_workload_parent", ["parent_id"], "parent_id <> ''")
    _partial("ix_workload_name", ["kind", "project", "name", "id"], "named = 1")
    _partial("uq_workload_name", ["kind", "project", "name"], "named = 1 AND live = 1", unique=True)
    if shared:
        op.create_index("ix_workload_seq", "workload", ["seq"])
    op.create_table("identity", sa.Column("name", sa.Text, primary_key=True), _text("value"))


_OLD = (
    *("id", "rev", "seq", "live", "phase", "kind", "project", "name", "cluster_id", "number"),
    *("created_ms", "ended_ms", "body"),
)


def _lifted(row: dict[str, object], users: dict[str, str]) -> dict[str, object]:
    """A row with its columns and body as they are from now on. `users`: of clusters, by id; their ids come
    before those of jobs. A job without a user is its cluster's user's."""
    kind = str(row["kind"])
    body = msgspec.json.decode(str(row["body"]), type=dict[str, object])
    spec = body.get("spec")
    assert isinstance(spec, dict)
    status: dict[str, object] = {"kind": kind}
    for names, target in ((_SPEC, spec), (_STATUS, status)):
        for name in names.get(kind, ()):
            if name in body:
                target[name] = body.pop(name)
    for name in (*_SPEC["cluster"], *_STATUS["cluster"], *_STATUS["job"]):
        body.pop(name, None)  # of another kind: it never meant anything
    host_id = str(row.pop("cluster_id"))
    if not body.get("user") and host_id in users:
        body["user"] = users[host_id]
    if kind == "cluster":
        users[str(row["id"])] = str(body.get("user", ""))
    if body.pop("cluster_id", None):
        body["host_id"] = host_id
    body["status"] = status
    text = msgspec.json.encode(body).decode()
    return {**row, "host_id": host_id, "parent_id": "", "named": int(kind == "cluster"), "body": text}
