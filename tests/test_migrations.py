"""The database's structure: made from nothing, the same as the code's, each step back and forth with rows in every
table, on both databases."""

import re
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger import claim, complete, folder, found, scored, submitted
from sqlalchemy import MetaData, event, func, insert, inspect, select, text, types

from db import migrate
from db.errors import DatabaseUnreachable, Unknown
from db.schema import Base
from db.settings import Settings
from db.store import audit, certificate, entries, intake, models, people, reading, scoring
from db.store.connection import connect
from db.store.sites import add_site, site_named
from db.words import Cause, Reason, Role, Stage, Verdict

STEPS = [step.revision for step in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions()][::-1]  # oldest first
PAIRS = [*zip(["base", *STEPS], STEPS, strict=False)]


def module(revision):
    return ScriptDirectory(str(migrate.MIGRATIONS)).get_revision(revision).module


def tables(db):
    return set(inspect(db.engine).get_table_names())


def reflected(db) -> MetaData:
    """The tables as the database has them now."""
    found = MetaData()
    found.reflect(db.engine)
    found.remove(found.tables["alembic_version"])
    return found


# What the tables' CHECKs ask for, beyond a value of the column's type.
FITTING = {
    ("outcomes", "kind"): "failed",
    ("outcomes", "reason"): "timed_out",
    ("outcomes", "score"): None,
    ("outcomes", "flagged"): None,
    ("thresholds", "value"): 0.5,
}


def fill(db) -> None:
    """See to two rows in every table: one with every column filled, one with NULL wherever it may be."""
    numbers = count(1000)
    with db.engine.connect() as connection:
        for table in reflected(db).sorted_tables:
            there = connection.scalar(select(func.count()).select_from(table))
            for is_sparse in (False, True)[there:]:
                row = {column.name: value(connection, column, next(numbers), is_sparse) for column in table.columns}
                connection.execute(insert(table).values(row))
        connection.commit()


def value(connection, column, number, is_sparse):
    known = (column.table.name, column.name)
    if known in FITTING:
        return FITTING[known]
    if is_sparse and column.nullable:
        return None
    for key in column.foreign_keys:
        order = key.column.desc() if is_sparse else key.column
        return connection.scalar(select(key.column).order_by(order).limit(1))
    match column.type:
        case types.Boolean():
            return not is_sparse
        case types.Integer() | types.BigInteger():
            return number
        case types.Float():
            return number / 4096
        case types.DateTime():
            return datetime(2026, 11, 24, 1, 2, 3, number, tzinfo=UTC)
        case types.JSON():
            return {"a": [number, "ä"]}
        case types.LargeBinary() | types.BLOB():
            return b"/\xff\n%d" % number
        case types.String():
            return f"ä{number}"[: column.type.length]
    raise AssertionError(f"no value for {known}: {column.type!r}")


def rows(db) -> dict[str, list[dict]]:
    """Every row of every table, as the driver gives it, in the order of the primary key."""
    held = {}
    with db.engine.connect() as connection:
        for name, table in reflected(db).tables.items():
            ordered = select(table).order_by(*table.primary_key.columns)
            held[name] = [dict(row) for row in connection.execute(ordered).mappings()]
    return held


def common(rows_of, other):
    """The rows, in the tables and columns that the other has, too."""
    kept = {}
    for table in rows_of.keys() & other.keys():
        columns = other[table][0].keys() if other[table] else ()
        kept[table] = [{name: row[name] for name in row.keys() & set(columns)} for row in rows_of[table]]
    return kept


def lost(before, after) -> set[str]:
    """Names of the tables and columns that are no longer there."""
    gone = before.keys() - after.keys()
    columns = {
        name for table in before.keys() & after.keys() for name in before[table][0].keys() - after[table][0].keys()
    }
    return gone | columns


def guards(db) -> set[str]:
    """The triggers that keep facts from being changed."""
    question = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if db.is_sqlite
        else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    )
    with db.engine.connect() as connection:
        return set(connection.scalars(text(question)))


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


@pytest.mark.parametrize(("before", "after"), PAIRS[1:])
def test_a_step_keeps_every_row_on_its_way_up_and_down(db, before, after):
    migrate.downgrade(db, "base")
    migrate.upgrade(db, before)
    fill(db)
    old, old_guards = rows(db), guards(db)
    assert all(len(found) >= 2 for found in old.values())

    migrate.upgrade(db, after)
    upgraded = rows(db)
    assert common(upgraded, old).keys() == old.keys()
    assert told(module(after).upgrade, changes(old, common(upgraded, old))) == set()
    assert guards(db) >= old_guards

    fill(db)
    new = rows(db)
    migrate.downgrade(db, before)
    back = rows(db)
    assert back.keys() == old.keys()
    assert guards(db) == old_guards
    kept = common(new, back)
    assert {table: len(found) for table, found in back.items()} == {table: len(found) for table, found in kept.items()}
    assert told(module(after).downgrade, lost(new, back) | changes(kept, back)) == set()

    migrate.upgrade(db, after)
    assert rows(db).keys() == new.keys()


def changes(before, after) -> set[str]:
    """Names of the columns that hold something else now, row by row; the same rows must be there."""
    return {
        name
        for table in before
        for was, now in zip(before[table], after[table], strict=True)
        for name in was
        if was[name] != now[name]
    }


def told(step, names) -> set[str]:
    """Those of these tables and columns that the step's docstring does not speak of."""
    said = step.__doc__ or ""
    return {name for name in names if not re.search(rf"\b{name}\b", said)}


@pytest.mark.parametrize("revision", STEPS)
def test_what_going_back_loses_is_written_down(revision):
    assert "Loses" in (module(revision).downgrade.__doc__ or "")


def test_every_step_goes_back_and_forth_down_to_nothing(db):
    fill(db)

    for step in [*STEPS[-2::-1], "base"]:
        migrate.downgrade(db, step)
        assert not migrate.is_current(db)

    assert tables(db) <= {"alembic_version"}
    migrate.upgrade(db)
    assert migrate.is_current(db)


def a_nights_middle(db):
    """A night that is half over: every kind of outcome, a claim that is held, a reader's verdict."""
    batch = submitted(db, [*folder(8), found("empty.png", reason=Reason.EMPTY, detail="no bytes")])
    held = claim(db)
    good, bad, worse, last = held.scans
    results = [scored(good, 0.9), scoring.Rejected(bad.id, Reason.BLANK, ""), scored(last, 0.2)]
    scoring.complete_chunk(db, held, [*results, scoring.Failed(worse.id, Cause.ENGINE_ERROR, "a test")])
    people.add_user(db, "rosa", role=Role.READER, password_hash="x", site_ids={1}, by="test")
    rosa = people.user_named(db, "rosa")
    entries.add_review(db, good.id, me=rosa, stage=Stage.VERDICT, verdict=Verdict.CONFIRM, note="seen")
    intake.add_page(db, intake.Submission(1, models.active(db).id, "/interrupted"), folder(2, prefix="open"))
    return batch, rows(db)


def test_a_night_begun_under_the_first_tables_is_finished_under_todays(db):
    batch, night = a_nights_middle(db)
    migrate.downgrade(db, "base")
    migrate.upgrade(db, STEPS[0])
    insert_rows(db, night)
    first, events = rows(db), audit.verify(db)

    migrate.upgrade(db)

    assert audit.verify(db) == events
    assert len(first["scans"]) == 11
    assert common(rows(db), first) == first
    complete(db, claim(db), 0.6)
    totals = reading.totals(db, batch)
    assert (totals.found, totals.scored, totals.rejected, totals.failed, totals.waiting) == (9, 6, 2, 1, 0)
    assert certificate.certify(db, batch).holds
    site, model = site_named(db, "local").id, models.active(db).id
    again = intake.seal(db, intake.Submission(site, model, "/interrupted"))
    assert reading.totals(db, again).found == 2
    entries.add_review(db, 1, me=people.user_named(db, "rosa"), stage=Stage.VERDICT, verdict=Verdict.DISMISS)
    assert audit.verify(db) == events + 2


def insert_rows(db, night):
    """Rows of today in the tables and columns that there were then."""
    with db.engine.connect() as connection:
        for table in reflected(db).sorted_tables:
            names = set(table.columns.keys())
            for row in night[table.name]:
                connection.execute(insert(table).values({name: row[name] for name in row.keys() & names}))
            if not db.is_sqlite and "id" in names:
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                connection.execute(text(f"SELECT setval({sequence}, (SELECT max(id) + 1 FROM {table.name}))"))
        connection.commit()


def test_steps_that_break_off_leave_the_tables_as_they_were(db):
    migrate.downgrade(db, STEPS[0])
    fill(db)
    before, structure = rows(db), tables(db)

    def breaks(connection, cursor, statement, *more):
        if "UPDATE alembic_version" in statement and STEPS[-1] in f"{statement}{more[0]}":
            raise KeyboardInterrupt

    event.listen(db.engine, "before_cursor_execute", breaks)
    with pytest.raises(KeyboardInterrupt):
        migrate.upgrade(db)
    event.remove(db.engine, "before_cursor_execute", breaks)

    assert (rows(db), tables(db)) == (before, structure)
    migrate.upgrade(db)
    assert common(rows(db), before) == before


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
