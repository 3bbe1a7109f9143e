from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.exc import DBAPIError

from ssl_core.errors import LedgerError
from ssl_core.history import database, schema
from ssl_core.history.ledger import Ledger
from ssl_core.records import Label, Measurement, Model, Promotion, PseudoLabel, Pulled, Reread
from tests.ledger_records import (
    ITEMS,
    TASK,
    asked,
    count,
    hint,
    label,
    raw,
    read,
    round_,
    selection,
    stage,
)

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK) as made:
        made.import_items(ITEMS)
        yield made


# The database itself refuses to change history


@pytest.fixture
def full(ledger):
    """A ledger with a row in every table."""
    ledger.add_labels([label("t1")])
    ledger.open_round(round_(1))
    ledger.look_into_vault(1, "m-1", "test")
    measured = Measurement("m-1", "teacher", "vault", "macro", "auroc", 0.5, 0.4, 0.6, 9)
    ledger.add_stage(
        stage(),
        models=[Model("m-1", "teacher", "resnet18", "teacher.safetensors")],
        selections=[selection("t1", 0)],
        pseudo_labels=[PseudoLabel("t2", "Nodule", 1.0, 0.9)],
        measurements=[measured],
    )
    ledger.finish_round(1, "{}")
    ledger.reading.assign([asked("t1"), asked("t2")], [hint("t1")])
    ledger.reading.take("room", Pulled((read("t1"), read("t2", outcome="skipped")), bookmark="2"))
    ledger.reading.ask_again(
        [Reread("t2", "bob", 1, 0, "contradiction", 0, "Nodule", 1.0, 0.9, "m-1", 1)]
    )
    decision = Promotion("promotion", 1, "m-1", "student", 1, "m-0", "teacher", "eva", "", "{}")
    ledger.add_promotion(decision, 0)
    job, _ = ledger.jobs.ask("round", {"seed": 3}, "eva")
    ledger.jobs.start(job.id, "here")
    raw(ledger, "INSERT INTO answers (item_id, finding, value) VALUES ('t1', 'Nodule', 1)")
    return ledger


def test_no_program_can_change_or_remove_a_row(full):
    postgres = full._engine.dialect.name == "postgresql"
    for table in schema.metadata.tables.values():
        column = table.columns.keys()[-1]
        changes = [f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"]
        if postgres:
            changes.append(f"TRUNCATE {table} CASCADE")
        else:
            changes.append(f"UPDATE OR REPLACE {table} SET {column} = {column}")
        before = count(full, table)
        assert before > 0
        for change in changes:
            with pytest.raises(DBAPIError, match=f"{table} is append-only"):
                raw(full, change)
        assert count(full, table) == before


def test_no_row_can_be_replaced_by_way_of_any_key(full):
    """On SQLite a REPLACE deletes the row in its way, past the triggers on DELETE."""
    with database.reading(full._engine) as connection:
        for table in schema.metadata.tables.values():
            held = connection.execute(select(table).limit(1)).mappings().one()
            unique = inspect(connection).get_unique_constraints(table.name)
            keys = [table.primary_key.columns.keys(), *(one["column_names"] for one in unique)]
            for key in keys:
                for change in replacements(full._engine.dialect.name, table, key, keys):
                    with pytest.raises(DBAPIError, match=f"{table} is append-only"):
                        raw(full, change)
            assert connection.execute(select(table).limit(1)).mappings().one() == held


def replacements(engine: str, table, key: list[str], keys: list[list[str]]) -> list[str]:
    """SQL that adds a row once more which is new by every key but this one."""
    names, values = [], []
    for column in table.columns:
        quoted = f'"{column.name}"'
        if column.name in key or not any(column.name in other for other in keys):
            names, values = [*names, quoted], [*values, quoted]
        elif column.name not in keys[0]:
            new = f"{quoted} || 'new'" if column.type.python_type is str else f"{quoted} + 1000"
            names, values = [*names, quoted], [*values, new]
    columns, row = ", ".join(names), f"SELECT {', '.join(values)} FROM {table} LIMIT 1"
    if engine == "sqlite":
        verbs = ("INSERT OR REPLACE", "REPLACE")
        return [f"{verb} INTO {table} ({columns}) {row}" for verb in verbs]
    insert = f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE {row}"
    return [
        f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {names[-1]} = EXCLUDED.{names[-1]}"
    ]


def test_sqlite_takes_no_value_of_another_type(tmp_path):
    """A numpy number would otherwise be stored as its bytes."""
    with Ledger.create(f"sqlite:///{tmp_path}/ledger.db", TASK) as ledger:
        ledger.import_items(ITEMS)
        ledger.open_round(round_(1))
        bytes_of_a_number = PseudoLabel("t1", "Nodule", 1.0, b"\0\0\0\0\0\0\xf0?")
        with pytest.raises(LedgerError, match="BLOB"):
            ledger.add_stage(stage(), pseudo_labels=[bytes_of_a_number])


# Several processes


def test_readers_neither_wait_for_a_writer_nor_see_its_half(ledger, ledger_url):
    def labels():
        yield label("t1")
        yield from (label("t2", key=str(number)) for number in range(schema.CHUNK))
        with Ledger.open(ledger_url) as other:
            assert other.labels() == []
        yield label("v1")

    assert ledger.add_labels(labels()) == schema.CHUNK + 2


ROUNDS, KEYS = 8, 12  # rounds, and labels that arrive while each is being opened


def _share(barrier) -> None:
    global together
    together = barrier


def _write(url: str, reverse: bool) -> int:
    """Bring the labels in small overlapping batches; return how many were new."""
    new = 0
    with Ledger.open(url) as ledger:
        for number in range(ROUNDS):
            keys = [f"{number}-{key}" for key in sorted(range(KEYS), reverse=reverse)]
            labels = [label("t1", reader=f"reader {key}", key=key) for key in keys]
            together.wait()
            new += sum(ledger.add_labels(labels[at : at + 6]) for at in range(0, KEYS, 4))
    return new


def _open_rounds(url: str) -> list[list[Label]]:
    """Open the rounds, and return what each saw when it was opened."""
    seen = []
    with Ledger.open(url) as ledger:
        for number in range(1, ROUNDS + 1):
            together.wait()
            ledger.open_round(round_(number))
            seen.append(ledger.labels(before_round=number))
            ledger.finish_round(number, "{}")
    return seen


def test_writers_in_several_processes_lose_and_double_nothing(ledger, ledger_url):
    barrier = SPAWN.Barrier(3, timeout=60)
    with ProcessPoolExecutor(3, SPAWN, _share, (barrier,)) as pool:
        opened = pool.submit(_open_rounds, ledger_url)
        written = [pool.submit(_write, ledger_url, reverse) for reverse in (False, True)]
        seen, new = opened.result(), [one.result() for one in written]
    labels = ledger.labels()
    assert sum(new) == ROUNDS * KEYS == count(ledger, schema.labels)
    assert len({one.key for one in labels}) == ROUNDS * KEYS
    assert [one.round for one in labels] == sorted(one.round for one in labels)
    for number, then in enumerate(seen, start=1):
        assert ledger.labels(before_round=number) == then  # nothing slipped in afterwards


def _half_a_stage(url: str, line) -> None:
    def pseudo_labels():
        for _ in range(3 * schema.CHUNK):
            yield PseudoLabel("t1", "Nodule", 1.0, 0.9)
        line.send("in the middle")
        line.recv()

    Ledger.open(url).add_stage(stage(), pseudo_labels=pseudo_labels())


def _half_a_sync(url: str, line) -> None:
    def labels():
        for number in range(3 * schema.CHUNK):
            yield label("t1", key=str(number))
        line.send("in the middle")
        line.recv()

    Ledger.open(url).add_labels(labels())


def _half_a_page(url: str, line) -> None:
    def reads():
        for number in range(3 * schema.CHUNK):
            yield read("t1", key=str(number))
        line.send("in the middle")
        line.recv()

    Ledger.open(url).reading.take("room", Pulled(reads(), bookmark="15000"))


@pytest.mark.parametrize("work", [_half_a_stage, _half_a_sync, _half_a_page])
def test_a_killed_writer_leaves_nothing_and_blocks_nobody(ledger, ledger_url, work):
    ledger.open_round(round_(1))
    ledger.reading.assign([asked("t1")])
    here, there = SPAWN.Pipe()
    writer = SPAWN.Process(target=work, args=(ledger_url, there))
    writer.start()
    there.close()  # ours: if the child dies by itself, the wait below ends too
    assert here.recv() == "in the middle"
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert ledger.stages(1) == ledger.pseudo_labels(1) == ledger.labels() == []
    assert ledger.reading.reads() == []
    assert ledger.reading.bookmark("room") == ""
    kept = [PseudoLabel("t1", "Nodule", 1.0, 0.9)]
    assert ledger.add_stage(stage(), pseudo_labels=kept)
    assert ledger.add_labels([label("t1")]) == 1
    assert ledger.reading.take("room", Pulled((read("t1", key="0"),), bookmark="1")).new == 1
    assert ledger.pseudo_labels(1) == kept
