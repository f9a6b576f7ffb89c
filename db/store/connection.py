"""The database: one engine a process, short transactions, one clock (the database's)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import FunctionElement

from db.errors import DatabaseUnreachable
from db.settings import Settings, settings

BUSY_MILLISECONDS = 30_000
# A server that vanished without a goodbye (its host lost power, a firewall forgot us) never answers, and libpq waits
# for ever by default: a sweep would hang. Each can be set otherwise in the database's URL.
POSTGRES_LINK = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}


class epoch_now(FunctionElement[float]):
    """Seconds since 1970 on the database's clock, so that a worker's wrong clock cannot break a lease."""

    type = Float()
    inherit_cache = True


@compiles(epoch_now, "sqlite")
def _sqlite_epoch(element: Any, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(epoch_now, "postgresql")
def _postgresql_epoch(element: Any, compiler: Any, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


@dataclass(frozen=True)
class Database:
    """An engine and the two kinds of transaction that the store uses."""

    engine: Engine
    config: Settings

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that changes nothing."""
        with _reachable(), Session(self.engine, info={"config": self.config}) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that commits at its end. On SQLite it takes the write lock at once (BEGIN IMMEDIATE),
        so that it waits for its turn instead of failing half-way."""
        engine = self.engine.execution_options(writes=True)
        with _reachable(), Session(engine, info={"config": self.config}) as session, session.begin():
            yield session


def now() -> datetime:
    """This process's clock, for moments shown to people; leases use `epoch_now`."""
    return datetime.now(UTC)


def connect(config: Settings) -> Database:
    """Open the database that the settings name; nothing is sent until the first question."""
    url = config.database
    is_sqlite = url.startswith("sqlite")
    # hide_parameters: an error's text goes to logs, and parameters hold patients.
    link = {} if is_sqlite else {name: how for name, how in POSTGRES_LINK.items() if name not in make_url(url).query}
    engine = create_engine(url, hide_parameters=True, pool_pre_ping=not is_sqlite, pool_recycle=1800, connect_args=link)
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, config)


@cache
def database() -> Database:
    """The process's database."""
    return connect(settings())


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise DatabaseUnreachable(f"the database does not answer: {_first_line(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseUnreachable(f"the database went away: {_first_line(error)}") from error
        raise


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__


def _configure_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are ours (SQLAlchemy: "Serializable isolation" for SQLite)
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
