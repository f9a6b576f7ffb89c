"""The database's structure brought up to date by Alembic; also used by `alembic` itself through migrations/env.py."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from db.store.connection import Database

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(db: Database, revision: str = "head") -> None:
    """Make or upgrade every table, in one transaction: broken off anywhere, nothing has changed."""
    with db.engine.execution_options(writes=True).connect() as connection:
        command.upgrade(_config(connection), revision)
        connection.commit()


def downgrade(db: Database, revision: str) -> None:
    """Go back to an earlier structure ("base" removes everything)."""
    with db.engine.execution_options(writes=True).connect() as connection:
        command.downgrade(_config(connection), revision)
        connection.commit()


def is_current(db: Database) -> bool:
    """Whether the database has the structure that this code expects."""
    with db.reading() as session:
        context = MigrationContext.configure(session.connection())
        return context.get_current_revision() == ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _config(connection: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
