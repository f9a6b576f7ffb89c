"""Alembic's entry: the connection comes from db.migrate."""

from alembic import context

from db.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,  # also on SQLite, where Alembic would commit step by step: db.migrate begins for real
)
with context.begin_transaction():
    context.run_migrations()
