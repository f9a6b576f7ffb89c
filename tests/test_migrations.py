"""The database's structure: made from nothing, the same as the code's, and back again, on both databases."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger import claim, complete, folder, submitted
from sqlalchemy import inspect

from db import migrate
from db.errors import DatabaseUnreachable, Unknown
from db.schema import Base
from db.settings import Settings
from db.store import audit, models, reading
from db.store.connection import connect
from db.store.sites import add_site, site_named


def tables(db):
    return set(inspect(db.engine).get_table_names())


def test_the_migrations_make_exactly_the_tables_of_the_code(db):
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, Base.metadata) == []


def test_a_migrated_database_is_current(db):
    assert migrate.is_current(db)


def test_upgrading_twice_keeps_what_is_there(db):
    batch = submitted(db, folder(3))
    complete(db, claim(db))
    events = audit.verify(db)

    migrate.upgrade(db)

    assert reading.totals(db, batch).scored == 3
    assert audit.verify(db) == events


def test_every_step_goes_back_and_forth_with_data_in_the_tables(db):
    submitted(db, folder(3))
    complete(db, claim(db))
    steps = [step.revision for step in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions()]  # newest first

    for step in [*steps[1:], "base"]:
        migrate.downgrade(db, step)
        assert not migrate.is_current(db)

    assert tables(db) <= {"alembic_version"}
    migrate.upgrade(db)
    assert migrate.is_current(db)


def test_a_database_made_anew_after_going_back_works(db):
    migrate.downgrade(db, "base")
    migrate.upgrade(db)

    site = add_site(db, "again", by="test")

    assert site_named(db, "again").id == site
    with pytest.raises(Unknown, match="no trained model"):
        models.active(db)


def test_there_is_one_newest_step():
    assert len(ScriptDirectory(str(migrate.MIGRATIONS)).get_heads()) == 1


def test_a_fresh_database_is_not_current(tmp_path):
    db = connect(Settings(home=tmp_path))

    assert not migrate.is_current(db)
    db.engine.dispose()


def test_a_database_out_of_reach_says_so():
    db = connect(Settings(home=Path("/nonexistent/nowhere")))

    with pytest.raises(DatabaseUnreachable):
        migrate.is_current(db)
