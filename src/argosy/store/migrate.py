"""Bring an older schema up to date with Alembic. Imported only when there is something to do."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

SCRIPTS = Path(__file__).parent / "migrations"


def alembic_config(connection: sa.Connection, *, more: Path | None = None) -> Config:
    """What Alembic needs to work on this connection; `more` is a folder of further migrations."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    folders = [SCRIPTS / "versions", *([more] if more else [])]
    config.set_main_option("version_locations", "\n".join(map(str, folders)).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: sa.Connection, *, more: Path | None = None, to: str = "head") -> None:
    """All migrations that this database does not have yet, inside the caller's transaction."""
    command.upgrade(alembic_config(connection, more=more), to)
