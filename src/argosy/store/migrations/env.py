"""Alembic's entry: works on the connection, and inside the transaction, of who called `migrate.upgrade`."""

from alembic import context

from argosy.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller began one transaction for all of it
)
context.run_migrations()
