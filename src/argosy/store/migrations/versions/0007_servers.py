"""Servers that share the database, who of them decides, and on whose machine claims are."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    op.create_table("server", sa.Column("id", sa.Text, primary_key=True), _number("seen_ms"), _text("body"))
    op.create_table("placed", sa.Column("claim_id", sa.Text, primary_key=True), _text("server"))
    op.create_table(
        "term",
        sa.Column("name", sa.Text, primary_key=True),
        *(_text("holder"), _number("number"), _number("until_ms")),
    )
