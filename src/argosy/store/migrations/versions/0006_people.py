"""Accounts, roles and credentials; the audit log, which is only added to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_GUARDS = {
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


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _order(name: str) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _partial(name: str, column: str, where: str, *, unique: bool = False) -> None:
    clause = sa.text(where)
    op.create_index(name, "directory", [column], unique=unique, sqlite_where=clause, postgresql_where=clause)


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "directory",
        *(_key("id"), _number("rev"), _number("seq"), _number("live")),
        *(_text("kind"), _text("uniq"), _text("body")),
    )
    if dialect == "postgresql":
        op.create_index("ix_directory_seq", "directory", ["seq"])
    _partial("ix_directory_live", "id", "live = 1")
    _partial("uq_directory", "uniq", "uniq <> ''", unique=True)
    op.create_table("last_use", _key("id"), _number("at_ms"))
    op.create_table(
        "audit",
        *(_order("seq"), _number("at_ms"), _text("who"), _text("via"), _text("credential")),
        *(_text("address"), _text("action"), _text("target"), _text("outcome"), _text("request")),
        *(_text("changes"), _text("prev"), _text("hash")),
    )
    op.create_index("ix_audit_at", "audit", ["at_ms"])
    op.create_table("audit_kept", _order("id"), _number("seq"), _text("hash"))
    for statement in _GUARDS[dialect]:
        op.execute(statement)
