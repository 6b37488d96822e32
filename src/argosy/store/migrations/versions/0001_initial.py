"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _order(name: str) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    clause = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=clause, postgresql_where=clause)


def upgrade() -> None:
    head = op.create_table("head", _order("id"), _number("seq"), _number("event_seq"), _number("checked_ms"))
    op.bulk_insert(head, [{"id": 1, "seq": 0, "event_seq": 0, "checked_ms": 0}])

    op.create_table(
        "workload",
        *(_key("id"), _number("rev"), _number("seq"), _number("live"), _text("phase")),
        *(_text("kind"), _text("project"), _text("name"), _text("cluster_id")),
        *(_number("number"), _number("created_ms"), _number("ended_ms"), _text("body")),
    )
    op.create_index("ix_workload_number", "workload", ["cluster_id", "number"])
    _partial("ix_workload_live", "workload", ["id"], "live = 1")
    _partial("ix_workload_ended", "workload", ["ended_ms"], "live = 0")
    _partial("ix_workload_cluster", "workload", ["project", "name", "id"], "kind = 'cluster'")
    _partial(
        "uq_workload_name", "workload", ["project", "name"], "kind = 'cluster' AND live = 1", unique=True
    )

    op.create_table(
        "attempt",
        *(_key("id"), _number("rev"), _number("seq"), _number("live"), _text("phase")),
        *(_text("workload_id"), _number("number"), _text("body")),
    )
    op.create_index("ix_attempt_workload", "attempt", ["workload_id", "number"])
    _partial("ix_attempt_live", "attempt", ["id"], "live = 1")

    op.create_table(
        "claim",
        *(_key("id"), _number("rev"), _number("seq"), _number("live"), _text("phase")),
        *(_text("workload_id"), _number("requested_ms"), _number("ended_ms"), _text("body")),
    )
    op.create_index("ix_claim_workload", "claim", ["workload_id"])
    _partial("ix_claim_live", "claim", ["id"], "live = 1")
    _partial("ix_claim_ended", "claim", ["ended_ms"], "live = 0")

    op.create_table(
        "node",
        *(_key("id"), _number("rev"), _number("seq"), _number("live"), _text("phase")),
        *(_text("claim_id"), _text("workload_id"), _text("body")),
    )
    op.create_index("ix_node_claim", "node", ["claim_id"])
    op.create_index("ix_node_workload", "node", ["workload_id"])
    _partial("ix_node_live", "node", ["id"], "live = 1")

    op.create_table("event", _order("seq"), _number("at_ms"), _text("subject"), _text("code"), _text("text"))
    op.create_index("ix_event_subject", "event", ["subject", "seq"])

    op.create_table("secret", _key("workload_id"), _text("body"))
    op.create_table(
        "request_key", _key("key"), _number("at_ms"), sa.Column("reply", sa.LargeBinary, nullable=False)
    )
    op.create_table("counter", _key("scope"), _number("value"))
    op.create_table("lease", _key("name"), _text("holder"), _number("until_ms"))
    if op.get_bind().dialect.name == "postgresql":  # several servers ask what the others wrote
        for table in ("workload", "attempt", "claim", "node"):
            op.create_index(f"ix_{table}_seq", table, ["seq"])
