"""The way from an empty database to today's tables: a tuple of functions, run in order, once each.

A migration that was released is never edited, since ledgers out there have run it; a change is a
new function at the end. For the same reason the tables are written here as SQL of their time and
not taken from `schema`.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, insert, inspect

from ssl_core.errors import LedgerError
from ssl_core.history import schema

TYPES = {
    "sqlite": {
        "seq": "seq INTEGER PRIMARY KEY",
        "bigint": "INTEGER",
        "real": "REAL",
        "bool": "INTEGER",
    },
    "postgresql": {
        "seq": "seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "bigint": "BIGINT",
        "real": "DOUBLE PRECISION",
        "bool": "BOOLEAN",
    },
}


def version(connection: Connection) -> int | None:
    """How many migrations this database has run; None if it is not a ledger."""
    table = schema.ledger_migrations
    if not inspect(connection).has_table(table.name):
        return None
    return int(connection.exec_driver_sql(f"SELECT max(version) FROM {table.name}").scalar_one())


def migrate(connection: Connection) -> None:
    """Run, inside the caller's transaction, the migrations that this database has not run yet.

    Raises `LedgerError` when it has run more of them than this version of Readloop knows.
    """
    done = version(connection) or 0
    if done > len(MIGRATIONS):
        raise LedgerError(
            f"The ledger was written by a newer Readloop (its tables are version {done}, this "
            f"one knows {len(MIGRATIONS)}); upgrade Readloop to open it."
        )
    for number, step in enumerate(MIGRATIONS[done:], done + 1):
        step(connection)
        row = {"version": number, "name": step.__name__, "at": schema.now()}
        connection.execute(insert(schema.ledger_migrations), row)


def first_tables(connection: Connection) -> None:
    """Everything that version 1 holds."""
    for name, columns in FIRST_TABLES.items():
        create_table(connection, name, columns)
    for name, columns in FIRST_INDEXES.items():
        connection.exec_driver_sql(f"CREATE INDEX {name} ON {columns}")


def create_table(connection: Connection, name: str, columns: str) -> None:
    """Create an append-only table; `{seq}`, `{bigint}`, … are as the engine has them.

    Each needs an integer key: without one, SQLite has a hidden row number, and REPLACE could
    reach a row by it.
    """
    engine = connection.dialect.name
    # Strict, because SQLite would otherwise store a numpy number as a blob of its bytes.
    strict = "STRICT" if engine == "sqlite" else ""
    connection.exec_driver_sql(f"CREATE TABLE {name} ({columns.format(**TYPES[engine])}) {strict}")
    forbid_change(connection, name)


def forbid_change(connection: Connection, table: str) -> None:
    """Make a table append-only, whichever program writes to it."""
    forbid = {"sqlite": _forbid_on_sqlite, "postgresql": _forbid_on_postgresql}
    forbid[connection.dialect.name](connection, table)


def _forbid_on_sqlite(connection: Connection, table: str) -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    for change in ("UPDATE", "DELETE"):
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} {refuse}"
        )
    # INSERT OR REPLACE deletes the row in its way, and fires delete triggers only where the
    # writing program has set recursive_triggers; so look for a row in the way beforehand.
    inspector = inspect(connection)
    keys = [inspector.get_pk_constraint(table)["constrained_columns"]]
    keys += [key["column_names"] for key in inspector.get_unique_constraints(table)]
    for number, key in enumerate(keys):
        same = " AND ".join(f"{column} = NEW.{column}" for column in key)
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table}_no_replace_{number} BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) {refuse}"
        )


def _forbid_on_postgresql(connection: Connection, table: str) -> None:
    connection.exec_driver_sql(
        "CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '%% is append-only', TG_TABLE_NAME; END $$"
    )
    connection.exec_driver_sql(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()"
    )


FIRST_TABLES = {
    "ledger_migrations": """
        version INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        at TEXT NOT NULL""",
    "meta": """
        id INTEGER PRIMARY KEY CHECK (id = 1),
        kind TEXT NOT NULL,
        findings TEXT NOT NULL,
        at TEXT NOT NULL""",
    "items": """
        {seq},
        id TEXT NOT NULL UNIQUE,
        "group" TEXT NOT NULL,
        split TEXT NOT NULL CHECK (split IN ('train', 'validation', 'vault')),
        path TEXT NOT NULL,
        mask TEXT,
        at TEXT NOT NULL""",
    "answers": """
        {seq},
        item_id TEXT NOT NULL REFERENCES items (id),
        finding TEXT NOT NULL,
        value {real},
        UNIQUE (item_id, finding)""",
    "labels": """
        {seq},
        item_id TEXT NOT NULL REFERENCES items (id),
        finding TEXT NOT NULL,
        value {real} CHECK (value IN (0, 1)),
        reader TEXT NOT NULL,
        source TEXT NOT NULL,
        key TEXT NOT NULL UNIQUE,
        seconds {real},
        round INTEGER NOT NULL,
        at TEXT NOT NULL""",
    "rounds": """
        number INTEGER PRIMARY KEY CHECK (number > 0),
        seed {bigint} NOT NULL,
        query_size INTEGER NOT NULL,
        strategy TEXT NOT NULL,
        recipe TEXT NOT NULL,
        config TEXT NOT NULL,
        at TEXT NOT NULL""",
    "round_ends": """
        round INTEGER PRIMARY KEY REFERENCES rounds (number),
        detail TEXT NOT NULL,
        at TEXT NOT NULL""",
    "stages": """
        {seq},
        round INTEGER NOT NULL REFERENCES rounds (number),
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        seconds {real} NOT NULL,
        at TEXT NOT NULL,
        UNIQUE (round, name)""",
    "selections": """
        {seq},
        round INTEGER NOT NULL,
        added_by TEXT NOT NULL,
        item_id TEXT NOT NULL REFERENCES items (id),
        rank INTEGER NOT NULL,
        kind TEXT NOT NULL,
        strategy TEXT NOT NULL,
        score {real},
        probability {real},
        slice_probability {real},
        reason TEXT NOT NULL,
        UNIQUE (round, rank),
        UNIQUE (round, item_id),
        FOREIGN KEY (round, added_by) REFERENCES stages (round, name)""",
    # No key over (item, finding): a stage is added once, whole, and the key would double the
    # time to insert a million rows.
    "pseudo_labels": """
        {seq},
        round INTEGER NOT NULL,
        added_by TEXT NOT NULL,
        item_id TEXT NOT NULL REFERENCES items (id),
        finding TEXT NOT NULL,
        value {real} NOT NULL CHECK (value BETWEEN 0 AND 1),
        score {real},
        FOREIGN KEY (round, added_by) REFERENCES stages (round, name)""",
    "models": """
        {seq},
        round INTEGER NOT NULL,
        added_by TEXT NOT NULL,
        id TEXT NOT NULL,
        stage TEXT NOT NULL,
        backbone TEXT NOT NULL,
        path TEXT NOT NULL,
        FOREIGN KEY (round, added_by) REFERENCES stages (round, name)""",
    "measurements": """
        {seq},
        round INTEGER NOT NULL,
        added_by TEXT NOT NULL,
        model_id TEXT NOT NULL,
        stage TEXT NOT NULL,
        split TEXT NOT NULL CHECK (split IN ('train', 'validation', 'vault')),
        finding TEXT NOT NULL,
        name TEXT NOT NULL,
        value {real},
        low {real},
        high {real},
        n INTEGER NOT NULL,
        FOREIGN KEY (round, added_by) REFERENCES stages (round, name)""",
    "vault_looks": """
        {seq},
        round INTEGER NOT NULL REFERENCES rounds (number),
        model_id TEXT NOT NULL,
        purpose TEXT NOT NULL,
        at TEXT NOT NULL""",
}
FIRST_INDEXES = {
    "labels_by_reader": "labels (item_id, finding, reader, round)",
    "pseudo_labels_by_stage": "pseudo_labels (round, added_by)",
}


def reading_room(connection: Connection) -> None:
    """Version 2: who was asked, what they saw, what they did; a label knows its reader's role."""
    roles = "CHECK (role IN ('reader', 'adjudicator'))"
    connection.exec_driver_sql(
        f"ALTER TABLE labels ADD COLUMN role TEXT NOT NULL DEFAULT 'reader' {roles}"
    )
    for name, columns in READING_TABLES.items():
        create_table(connection, name, columns)
    connection.exec_driver_sql("CREATE INDEX reads_by_reader ON reads (item_id, reader)")


READING_TABLES = {
    "assignments": """
        {seq},
        item_id TEXT NOT NULL REFERENCES items (id),
        reader TEXT NOT NULL,
        round INTEGER NOT NULL,
        priority {bigint} NOT NULL,
        "primary" {bool} NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('reader', 'adjudicator')),
        hinted {bool} NOT NULL,
        at TEXT NOT NULL,
        UNIQUE (item_id, reader)""",
    "hints": """
        {seq},
        item_id TEXT NOT NULL REFERENCES items (id),
        finding TEXT NOT NULL,
        value {real} CHECK (value IN (0, 1)),
        score {real},
        model_id TEXT NOT NULL,
        at TEXT NOT NULL,
        UNIQUE (item_id, finding)""",
    "reads": """
        {seq},
        key TEXT NOT NULL UNIQUE,
        item_id TEXT NOT NULL REFERENCES items (id),
        reader TEXT NOT NULL,
        source TEXT NOT NULL,
        outcome TEXT NOT NULL CHECK (outcome IN ('read', 'unusable', 'skipped', 'withdrawn')),
        reason TEXT NOT NULL,
        seconds {real},
        read_at TEXT,
        role TEXT NOT NULL CHECK (role IN ('reader', 'adjudicator')),
        hinted {bool} NOT NULL,
        round INTEGER NOT NULL,
        at TEXT NOT NULL""",
    "bookmarks": """
        {seq},
        room TEXT NOT NULL,
        bookmark TEXT NOT NULL,
        at TEXT NOT NULL""",
}


def places(connection: Connection) -> None:
    """Version 3: a read knows where in the reading room its question stands."""
    connection.exec_driver_sql("ALTER TABLE reads ADD COLUMN place TEXT NOT NULL DEFAULT ''")


def jobs(connection: Connection) -> None:
    """Version 4: rounds that were started as jobs, with their heartbeat and progress."""
    for name, columns in JOB_TABLES.items():
        create_table(connection, name, columns)
    # The newest event of each kind of a job is looked up every second.
    connection.exec_driver_sql("CREATE INDEX job_events_by_kind ON job_events (job, kind, seq)")


JOB_TABLES = {
    "jobs": """
        id INTEGER PRIMARY KEY CHECK (id > 0),
        kind TEXT NOT NULL CHECK (kind IN ('round')),
        options TEXT NOT NULL,
        asked_by TEXT NOT NULL,
        resumes INTEGER REFERENCES jobs (id),
        at TEXT NOT NULL""",
    "job_events": """
        {seq},
        job INTEGER NOT NULL REFERENCES jobs (id),
        kind TEXT NOT NULL CHECK (kind IN ('started', 'beat', 'progress', 'curve',
            'cancel_requested', 'finished', 'failed', 'cancelled')),
        detail TEXT NOT NULL,
        at TEXT NOT NULL""",
}


def model_promotions(connection: Connection) -> None:
    """Which model is in use: what was promoted or rolled back, by whom and why."""
    columns = """
        {seq},
        kind TEXT NOT NULL CHECK (kind IN ('promotion', 'override', 'rollback')),
        round INTEGER NOT NULL REFERENCES rounds (number),
        model_id TEXT NOT NULL,
        stage TEXT NOT NULL,
        replaced_round INTEGER NOT NULL REFERENCES rounds (number),
        replaced_id TEXT NOT NULL,
        replaced_stage TEXT NOT NULL,
        decided_by TEXT NOT NULL,
        why TEXT NOT NULL,
        verdict TEXT NOT NULL,
        at TEXT NOT NULL"""
    create_table(connection, "promotions", columns)


def rereads(connection: Connection) -> None:
    """Which items were put before another reader once more, and why: nobody reads that there."""
    columns = """
        {seq},
        item_id TEXT NOT NULL UNIQUE REFERENCES items (id),
        reader TEXT NOT NULL,
        round INTEGER NOT NULL REFERENCES rounds (number),
        priority {bigint} NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('contradiction', 'control')),
        pair INTEGER NOT NULL,
        finding TEXT NOT NULL,
        value {real} CHECK (value IN (0, 1)),
        confidence {real},
        model_id TEXT NOT NULL,
        after {bigint} NOT NULL,
        at TEXT NOT NULL"""
    create_table(connection, "rereads", columns)


def masks(connection: Connection) -> None:
    """What was drawn, by the digest of its kept mask; the path beside an item was never opened."""
    for table in ("labels", "answers", "pseudo_labels", "hints"):
        named = "mask TEXT CHECK (length(mask) = 64)"
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {named}")
    connection.exec_driver_sql("ALTER TABLE items DROP COLUMN mask")


Migration = Callable[[Connection], None]
MIGRATIONS: tuple[Migration, ...] = (
    first_tables,
    reading_room,
    places,
    jobs,
    model_promotions,
    rereads,
    masks,
)
