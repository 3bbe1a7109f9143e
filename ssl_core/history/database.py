"""A SQLite file or a PostgreSQL database: opening, transactions, and faults as one sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from ssl_core.errors import LedgerError

BUSY_SECONDS = 30  # how long a writer waits for another one
WRITER_LOCK = 0x72656164  # advisory lock that every PostgreSQL writer takes ("read" in ASCII)

# A piece of the driver's message, in lower case, and what to tell the user in its place.
ADVICE = (
    ("not a database", "is not a ledger; give the file that `readloop init` made"),
    ("locked", "is locked by another program; try again when that one is done"),
    ("lock timeout", "is locked by another program; try again when that one is done"),
    ("readonly", "cannot be written; check the permissions of the file and its folder"),
    ("unable to open", "cannot be opened; check the permissions of the file and its folder"),
    ("disk is full", "cannot grow because the disk is full; make room and try again"),
    ("no space left", "cannot grow because the disk is full; make room and try again"),
    ("malformed", "is damaged; put back a copy of it"),
    ("no such table", "is damaged; put back a copy of it"),
    ("password", "refused the user or the password; check the address and PGPASSWORD"),
    ("permission denied", "does not let this user write; ask for CREATE rights on its schema"),
    ("does not exist", "has no such database, user or table; check the address"),
    ("foreign key", "was given a row about an item, round or stage that it does not hold"),
    ("resolve host", "cannot be reached; check host and port, and that the server runs"),
    ("connection", "cannot be reached; check host and port, and that the server runs"),
    ("timeout", "cannot be reached; check host and port, and that the server runs"),
)


def parse(url: str) -> URL:
    """Read an address: `sqlite:///FILE`, `postgresql://…` or `postgresql+psycopg://…`.

    Raises `LedgerError`, which never repeats the text: it may hold a password.
    """
    try:
        place = make_url(url)
    except (ArgumentError, ValueError):
        place = URL.create("unknown")
    if place.drivername in ("postgresql", "postgresql+psycopg"):
        # Without a limit, a host that drops packets would hold the caller for minutes.
        query = {"connect_timeout": "10", **place.query}
        return place.set(drivername="postgresql+psycopg", query=query)
    if place.drivername == "sqlite" and place.database not in (None, "", ":memory:"):
        return place
    raise LedgerError(
        "The ledger's address is not usable; write sqlite:///FILE or postgresql://USER@HOST/NAME."
    )


def shown(place: URL) -> str:
    """The address for people: without the password, or the options that may hold another."""
    return place.set(query={}).render_as_string(hide_password=True)


def new_file(place: URL) -> None:
    """Create an empty SQLite file in WAL mode, so that readers never wait for a writer."""
    path = Path(str(place.database))
    try:
        path.open("xb").close()
        with closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA journal_mode = WAL")
    except FileExistsError:
        raise LedgerError(f"{path} exists already; open it, or choose another place.") from None
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(
            f"{path} cannot be created ({error}); check that its folder exists and is writable."
        ) from error


@contextmanager
def opening(place: URL) -> Iterator[Engine]:
    """An engine for the address, let go again if the caller's block fails."""
    engine = connect(place)
    try:
        yield engine
    except BaseException:
        engine.dispose()
        raise


def connect(place: URL) -> Engine:
    """An engine for the address; nothing is opened until the first transaction."""
    if place.get_backend_name() == "postgresql":
        # READ COMMITTED, because a writer must see what was committed while it waited its turn.
        return create_engine(place, isolation_level="READ COMMITTED", pool_pre_ping=True)
    engine = create_engine(place, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin in _begin_sqlite, not in the driver
    connection.execute("PRAGMA foreign_keys = ON")
    # 64 MiB: the keys are hashes, so that an import comes back to every page of their indexes.
    connection.execute("PRAGMA cache_size = -65536")
    # FULL, not NORMAL: a reader's work outweighs one fsync a commit, should the power fail.
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that reads. Faults of the database become `LedgerError`."""
    with _in_one_sentence(engine), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes, all or nothing; writers of all processes take turns.

    Raises `LedgerError` when another writer holds the ledger for longer than `BUSY_SECONDS`.
    """
    with _in_one_sentence(engine), engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
        if fence := connection.get_execution_options().get("fence"):
            fence(connection)  # after the lock: what it sees holds until the commit
        yield connection


def put_fence(engine: Engine, fence: Callable[[Connection], None]) -> None:
    """Ask `fence` at the start of every writing transaction; what it raises refuses the write."""
    engine.update_execution_options(fence=fence)


@contextmanager
def _in_one_sentence(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:  # a COPY speaks to psycopg directly
        fault = error.orig if isinstance(error, DBAPIError) else error
        raise LedgerError(sentence(str(fault), engine.url)) from error


def sentence(fault: str, place: URL) -> str:
    """What a driver's message means for the user of the ledger at `place`."""
    advice = (says for piece, says in ADVICE if piece in fault.lower())
    reason = f"refused a change: {' '.join(fault.split())}"
    return f"The ledger {shown(place)} {next(advice, reason)}."
