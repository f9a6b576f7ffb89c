"""Many rows at once: whole statements for the driver, in place of SQLAlchemy's work for each row."""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, Dialect, Table, any_, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session

# Rows in one statement: few enough for PostgreSQL's 65,535 parameters, and so many that SQLite works through them
# in C, without the interpreter lock, while other threads read files.
ROWS = 256


def insert_rows(session: Session, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert `rows`, each with a value for each of `names`. Values are turned as the columns' types say; defaults
    made in Python are not: give every column that has one."""
    connection = session.connection()
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        statement = _insert(connection.dialect, table, tuple(names), len(part))
        connection.exec_driver_sql(statement, _flat(part, _turned(connection.dialect, table, tuple(names))))


def among(session: Session, column: InstrumentedAttribute[Any], values: Sequence[int | str]) -> ColumnElement[bool]:
    """`column IN values`, with all the values in one parameter: a thousand of them cost SQLAlchemy milliseconds."""
    if session.connection().dialect.name == "sqlite":
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))
    return column == any_(literal(values, ARRAY(column.type)))


def insert_into(session: Session, table: type[DeclarativeBase]) -> sqlite.Insert | postgresql.Insert:
    """INSERT that can say what to do where the row is there already."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


@lru_cache(1024)
def _insert(dialect: Dialect, table: Table, names: tuple[str, ...], count: int) -> str:
    """INSERT of `count` rows. Cached, so that the driver meets the same text again, prepared."""
    quoted = dialect.identifier_preparer
    place = "?" if dialect.paramstyle == "qmark" else "%s"
    row = f"({', '.join([place] * len(names))})"
    columns = ", ".join(quoted.format_column(table.c[name]) for name in names)
    return f"INSERT INTO {quoted.format_table(table)} ({columns}) VALUES {', '.join([row] * count)}"  # noqa: S608 (names of the schema)  # nosec B608


@lru_cache(1024)
def _turned(dialect: Dialect, table: Table, names: tuple[str, ...]) -> list[tuple[int, Any]]:
    """What turns a value into the driver's, by position, where the column's type asks for that."""
    columns: Iterable[Column[Any]] = (table.c[name] for name in names)
    turns = (column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns)
    return [(position, turn) for position, turn in enumerate(turns) if turn is not None]


def _flat(rows: Sequence[Sequence[Any]], turned: list[tuple[int, Any]]) -> tuple[Any, ...]:
    flat = [value for row in rows for value in row]
    width = len(rows[0])
    for position, turn in turned:
        flat[position::width] = map(turn, flat[position::width])
    return tuple(flat)
