from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from ssl_core.errors import LedgerError
from ssl_core.history import database
from ssl_core.history.ledger import Ledger
from tests.ledger_records import ITEMS, TASK, label


def test_open_leaves_another_programs_database_as_it_was(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE items (id)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger.open(f"sqlite:///{path}")
    with pytest.raises(LedgerError, match="exists already"):
        Ledger.create(f"sqlite:///{path}", TASK)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["other.db"]


def test_open_refuses_a_file_of_another_kind(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("patient,finding\n" * 200)
    with pytest.raises(LedgerError, match="is not a ledger"):
        Ledger.open(f"sqlite:///{path}")


@pytest.mark.parametrize("folder", ["/dev/null", "/no/such/folder"])
def test_create_says_where_it_cannot_write(folder):
    with pytest.raises(LedgerError, match=f"{folder}/ledger.db cannot be created"):
        Ledger.create(f"sqlite:///{folder}/ledger.db", TASK)


@pytest.mark.parametrize(
    "url",
    ["", "hunter2", "sqlite://", "sqlite:///:memory:", "mysql://ann:hunter2@host/db",
     "postgresql://ann:hunter2@host:port/db"],
)  # fmt: skip
def test_an_unusable_address_is_refused_and_not_repeated(url):
    with pytest.raises(LedgerError, match="address is not usable") as caught:
        Ledger.open(url)
    assert "hunter2" not in str(caught.value)


def test_sqlite_readers_never_wait_and_foreign_keys_hold(tmp_path):
    names = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
    with Ledger.create(f"sqlite:///{tmp_path}/ledger.db", TASK) as ledger:
        connection = ledger._engine.connect()
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
        connection.close()
    assert modes == ["wal", 1, 2, 30_000]


# PostgreSQL's own faults


def test_the_password_is_never_shown(postgres_server):
    place = database.parse(f"{postgres_server}/postgres?sslpassword=hunter2")
    assert place.password not in database.shown(place)
    assert "hunter2" not in database.shown(place)
    assert "127.0.0.1" in database.shown(place)


def test_a_wrong_password_is_one_sentence_without_it(postgres_server):
    good = database.parse(f"{postgres_server}/postgres")
    bad = good.set(password="hunter2").render_as_string(hide_password=False)
    with pytest.raises(LedgerError, match="refused the user or the password") as caught:
        Ledger.open(bad)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.__cause__)


def test_a_missing_database_and_an_unreachable_server_are_told_apart(postgres_server):
    with pytest.raises(LedgerError, match="no such database"):
        Ledger.open(f"{postgres_server}/nowhere")
    nobody_listens = database.parse(f"{postgres_server}/postgres").set(port=1)
    with pytest.raises(LedgerError, match="cannot be reached"):
        Ledger.create(nobody_listens.render_as_string(hide_password=False), TASK)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("attempt to write a readonly database", "cannot be written"),
        ("unable to open database file", "cannot be opened"),
        ("database or disk is full", "disk is full"),
        ("could not extend file: No space left on device", "disk is full"),
        ("permission denied for schema public", "CREATE rights"),
        ("failed to resolve host 'nowhere'", "cannot be reached"),
        ("something new\nof two lines", "refused a change: something new of two lines"),
    ],
)
def test_a_drivers_message_becomes_one_sentence(fault, says):
    told = database.sentence(fault, database.parse("sqlite:///l.db"))
    assert told.startswith("The ledger sqlite:///l.db ")
    assert says in told
    assert "\n" not in told


# Waiting


def test_a_writer_that_waits_too_long_gets_a_sentence(ledger_url, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with Ledger.create(ledger_url, TASK) as ledger, Ledger.open(ledger_url) as other:
        ledger.import_items(ITEMS)
        locked = pytest.raises(LedgerError, match="is locked by another program")
        with database.writing(ledger._engine), locked:
            other.add_labels([label("t1")])
        assert other.add_labels([label("t1")]) == 1
