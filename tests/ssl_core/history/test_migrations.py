from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from ssl_core.errors import LedgerError
from ssl_core.history import database, migrations, schema
from ssl_core.history.ledger import Ledger
from ssl_core.records import Assignment, Item, Label, Pulled, Read, Task
from tests.ledger_records import same

TODAY = migrations.MIGRATIONS
TASK = Task("binary", ("Effusion",))
ITEM = Item("t1", "anna", "train", "1.png")
LABEL = Label("t1", "Effusion", 1.0, "ann", "import", "row 1")


def add_notes(connection) -> None:
    """What a later release might do: a column more, a table more."""
    connection.execute(text("ALTER TABLE labels ADD COLUMN note TEXT"))
    migrations.create_table(connection, "notes", "{seq}, body TEXT NOT NULL, weight {real}")


def fail_halfway(connection) -> None:
    connection.execute(text("ALTER TABLE labels ADD COLUMN half TEXT"))
    connection.execute(text("ALTER TABLE no_such_table ADD COLUMN other TEXT"))


@pytest.fixture
def later(monkeypatch):
    """A function that lets the code be of a later release, with these migrations more."""

    def release(*steps) -> None:
        monkeypatch.setattr(migrations, "MIGRATIONS", (*TODAY, *steps))

    release()
    return release


@pytest.fixture
def first_url(ledger_url, later):
    """The URL of a closed ledger of today's version with something in it."""
    with Ledger.create(ledger_url, TASK) as ledger:
        ledger.import_items([ITEM], [LABEL])
    return ledger_url


@pytest.fixture
def version_1_url(ledger_url):
    """The URL of a ledger as the first release left it; SQL of that time, not today's code."""
    place = database.parse(ledger_url)
    if place.get_backend_name() == "sqlite":
        database.new_file(place)
    engine = database.connect(place)
    with database.writing(engine) as connection:
        migrations.first_tables(connection)
        for statement in VERSION_1:
            connection.execute(text(statement))
    engine.dispose()
    return ledger_url


LABEL_COLUMNS = "item_id, finding, value, reader, source, key, seconds, round, at"
VERSION_1 = (
    "INSERT INTO ledger_migrations VALUES (1, 'first_tables', 'then')",
    """INSERT INTO meta VALUES (1, 'binary', '["Effusion"]', 'then')""",
    'INSERT INTO items (id, "group", split, path, at) VALUES '
    "('t1', 'anna', 'train', '1.png', 'then'), ('t2', 'bea', 'train', '2.png', 'then')",
    f"INSERT INTO labels ({LABEL_COLUMNS}) VALUES "
    "('t1', 'Effusion', 1, 'ann', 'import', 'row 1', NULL, 0, 'then'), "
    "('t2', 'Effusion', 0, 'archive', 'archive', 'archive:t2:Effusion', 2.5, 1, 'then'), "
    "('t2', 'Effusion', NULL, 'bob', 'label_studio', '7', NULL, 1, 'then')",
)


def test_a_ledger_of_the_first_release_opens_with_its_labels(version_1_url):
    held = [
        LABEL,
        Label("t2", "Effusion", 0.0, "archive", "archive", "archive:t2:Effusion", 2.5, 1),
        Label("t2", "Effusion", math.nan, "bob", "label_studio", "7", None, 1),
    ]
    assert look(version_1_url)[0] == 1
    for _ in range(2):
        with Ledger.open(version_1_url) as ledger:
            assert ledger.task == TASK
            assert same(ledger.labels(), held)
            assert {one.role for one in ledger.labels()} == {"reader"}
            assert ledger.add_labels(held) == 0
            assert ledger.reading.assignments() == ledger.reading.reads() == []
            assert ledger.reading.hints() == {}
            assert ledger.reading.bookmark("room") == ""
    version, names, columns = look(version_1_url)
    assert (version, names) == (len(TODAY), [step.__name__ for step in TODAY])
    assert {name: sorted(found) for name, found in columns.items()} == {
        name: sorted(table.columns.keys()) for name, table in schema.metadata.tables.items()
    }


def test_a_ledger_of_the_first_release_can_be_read_on_and_not_changed(version_1_url):
    with Ledger.open(version_1_url) as ledger:
        log = ledger.reading
        log.assign([Assignment("t2", "cat", 1, 0, role="adjudicator")])
        read = Read("k", "t2", "cat", "label_studio", answers=(("Effusion", 1.0),))
        assert log.take("room", Pulled((read,), bookmark="1")).new == 1
        assert [one.role for one in ledger.labels()] == ["reader"] * 3 + ["adjudicator"]
        for change in ("UPDATE labels SET role = 'adjudicator'", "DELETE FROM labels"):
            with (
                pytest.raises(DBAPIError, match="labels is append-only"),
                ledger._engine.begin() as connection,
            ):
                connection.execute(text(change))


def test_an_older_ledger_s_items_lose_the_path_of_a_mask_that_nobody_opened(version_1_url):
    place = database.parse(version_1_url)
    engine = database.connect(place)
    with engine.begin() as connection:
        row = "('t3', 'carl', 'vault', '3.png', 'masks/3.png', 'then')"
        named = 'id, "group", split, path, mask, at'
        connection.execute(text(f"INSERT INTO items ({named}) VALUES {row}"))
    engine.dispose()
    with Ledger.open(version_1_url) as ledger:
        assert ledger.items("vault") == [Item("t3", "carl", "vault", "3.png")]
        assert {one.mask for one in ledger.labels()} == {None}
        with (
            pytest.raises(DBAPIError, match="items is append-only"),
            ledger._engine.begin() as connection,
        ):
            connection.execute(text("DELETE FROM items"))


def look(url: str):
    """Version, names of the migrations, and the columns of every table."""
    engine = database.connect(database.parse(url))
    with engine.connect() as connection:
        table = inspect(connection)
        columns = {
            name: [column["name"] for column in table.get_columns(name)]
            for name in table.get_table_names()
        }
        names = connection.execute(text("SELECT name FROM ledger_migrations ORDER BY version"))
        found = migrations.version(connection), list(names.scalars()), columns
    engine.dispose()
    return found


def test_the_tables_are_as_the_code_sees_them(ledger_url):
    Ledger.create(ledger_url, TASK).close()
    version, names, columns = look(ledger_url)
    assert version == len(migrations.MIGRATIONS) == len(names)
    assert {name: sorted(found) for name, found in columns.items()} == {
        name: sorted(table.columns.keys()) for name, table in schema.metadata.tables.items()
    }


def test_every_table_has_one_integer_key(ledger_url):
    """So that SQLite has no hidden row number by which REPLACE could reach a row."""
    Ledger.create(ledger_url, TASK).close()
    engine = database.connect(database.parse(ledger_url))
    for name, table in schema.metadata.tables.items():
        key = inspect(engine).get_pk_constraint(name)["constrained_columns"]
        assert key == table.primary_key.columns.keys()
        kinds = {column["name"]: column["type"] for column in inspect(engine).get_columns(name)}
        assert [kinds[column].python_type for column in key] == [int]
    engine.dispose()


def test_a_database_without_our_tables_has_no_version(ledger_url):
    place = database.parse(ledger_url)
    if place.get_backend_name() == "sqlite":
        database.new_file(place)
    engine = database.connect(place)
    with engine.connect() as connection:
        assert migrations.version(connection) is None
    engine.dispose()


def test_an_older_ledger_is_brought_up_to_date_with_its_history(first_url, later):
    later(add_notes)
    with Ledger.open(first_url) as ledger:
        assert ledger.task == TASK
        assert ledger.items() == [ITEM]
        assert ledger.labels() == [LABEL]
        assert ledger.add_labels([LABEL]) == 0
    version, names, columns = look(first_url)
    assert version == len(TODAY) + 1
    assert names[-2:] == [TODAY[-1].__name__, "add_notes"]
    assert "note" in columns["labels"]
    assert columns["notes"] == ["seq", "body", "weight"]


def test_a_migrated_ledger_is_still_append_only(first_url, later):
    later(add_notes)
    with Ledger.open(first_url) as ledger:
        with ledger._engine.begin() as connection:
            connection.execute(text("INSERT INTO notes (body, weight) VALUES ('blurred', 0.5)"))
        for change in ("UPDATE labels SET note = 'x'", "DELETE FROM notes", "DELETE FROM labels"):
            with (
                pytest.raises(DBAPIError, match="append-only"),
                ledger._engine.begin() as connection,
            ):
                connection.execute(text(change))


def test_a_migration_runs_once(first_url, later):
    ran = []
    later(lambda connection: ran.append("second"), lambda connection: ran.append("third"))
    for _ in range(2):
        Ledger.open(first_url).close()
    assert ran == ["second", "third"]
    assert look(first_url)[0] == len(TODAY) + 2


def test_a_migration_runs_once_also_when_several_open_at_once(first_url, later):
    ran, together = [], threading.Barrier(3)

    def second(connection) -> None:
        ran.append("second")

    later(second)

    def open_it(_) -> None:
        together.wait()
        Ledger.open(first_url).close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(open_it, range(3)))
    assert ran == ["second"]
    assert look(first_url)[1] == [*(step.__name__ for step in TODAY), "second"]


def test_a_newer_ledger_is_refused_and_left_alone(ledger_url, later):
    later(add_notes)
    Ledger.create(ledger_url, TASK).close()
    newer = look(ledger_url)
    later()
    versions = rf"newer Readloop.*version {len(TODAY) + 1}.*knows {len(TODAY)}.*upgrade"
    with pytest.raises(LedgerError, match=versions):
        Ledger.open(ledger_url)
    assert look(ledger_url) == newer


def test_a_failed_migration_changes_nothing(first_url, later):
    before = look(first_url)
    later(add_notes, fail_halfway)
    with pytest.raises(LedgerError):
        Ledger.open(first_url)
    assert look(first_url) == before
    later(add_notes)
    Ledger.open(first_url).close()
    assert look(first_url)[0] == len(TODAY) + 1


def test_migrations_keep_their_names_and_their_order():
    """Ledgers out there have run these: a new one goes to the end, and none is taken away."""
    held = ["first_tables", "reading_room", "places", "jobs", "model_promotions", "rereads"]
    assert [step.__name__ for step in TODAY][: len(held)] == held
