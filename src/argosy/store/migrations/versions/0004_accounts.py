"""Budgets, tokens and the name of the key of secrets; what claims cost in earlier periods as columns."""

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_AT_ONCE = 1000


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _partial(name: str, column: str, where: str) -> None:
    clause = sa.text(where)
    op.create_index(name, "claim", [column], sqlite_where=clause, postgresql_where=clause)


def upgrade() -> None:
    op.create_table("budget", _key("id"), _number("rev"), _number("seq"), _number("live"), _text("body"))
    op.create_table("token", _key("name"), _text("sha256"), _text("scope"), _number("created_ms"))
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table("secret_key", sa.Column("id", kind, primary_key=True, autoincrement=False), _text("name"))
    _rebuild_claims()


def _rebuild_claims() -> None:
    connection = op.get_bind()
    shared = connection.dialect.name == "postgresql"
    for name in ("workload", "live", "ended", *(["seq"] if shared else [])):
        op.drop_index(f"ix_claim_{name}", "claim")
    op.rename_table("claim", "claim_0003")
    if shared:
        op.execute("ALTER INDEX claim_pkey RENAME TO claim_0003_pkey")
    made = op.create_table(
        "claim",
        *(_key("id"), _number("rev"), _number("seq"), _number("live"), _text("phase")),
        *(_text("workload_id"), _number("requested_ms"), _number("ended_ms")),
        *(_number("spent_ms"), _number("cost_micro_usd"), _text("body")),
    )
    names = ("id", "rev", "seq", "live", "phase", "workload_id", "requested_ms", "ended_ms", "body")
    old = sa.table("claim_0003", *(sa.column(name) for name in names))
    after = ""
    while True:
        query = sa.select(old).where(old.c.id > after).order_by(old.c.id).limit(_AT_ONCE)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            break
        connection.execute(made.insert(), [{**row, **_sums(str(row["body"]))} for row in rows])
        after = str(rows[-1]["id"])
    op.drop_table("claim_0003")
    op.create_index("ix_claim_workload", "claim", ["workload_id"])
    _partial("ix_claim_live", "id", "live = 1")
    _partial("ix_claim_ended", "ended_ms", "live = 0")
    if shared:
        op.create_index("ix_claim_seq", "claim", ["seq"])


def _sums(body: str) -> dict[str, int]:
    found = msgspec.json.decode(body, type=dict[str, object])
    return {name: int(str(found.get(name, 0))) for name in ("spent_ms", "cost_micro_usd")}
