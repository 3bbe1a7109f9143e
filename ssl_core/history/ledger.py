"""The append-only history of a workspace: what was asked, answered, made and measured, and when.

Rows are only ever added; the database itself refuses anything else (see `migrations`). So a past
round replays: every read takes the events of the rounds before it and nothing later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, Select, func, insert, select

from ssl_core.errors import LedgerError
from ssl_core.history import database, label_events, migrations, round_events, schema, stage_events
from ssl_core.history.jobs import JobLog
from ssl_core.history.read_log import ReadLog
from ssl_core.records import (
    CONTROL,
    Answer,
    HeldRead,
    Item,
    Label,
    Measurement,
    Model,
    Promotion,
    PseudoLabel,
    Round,
    Selection,
    Split,
    Stage,
    Task,
    VaultLook,
)

R = TypeVar("R")


class Ledger:
    """A workspace's history in a SQLite file (`sqlite:///FILE`) or PostgreSQL (`postgresql://…`).

    Safe to use from several threads and processes at once: writers take turns. Every method
    raises `LedgerError` when the database cannot be reached, read or written.
    """

    def __init__(self, engine: Engine, task: Task) -> None:
        self._engine = engine
        self.task = task
        self.reading = ReadLog(engine, task)
        self.jobs = JobLog(engine)

    @classmethod
    def create(
        cls,
        url: str,
        task: Task,
        items: Iterable[Item] = (),
        labels: Iterable[Label] = (),
        answers: Iterable[Answer] = (),
    ) -> Self:
        """Make a new ledger with what `import_items` would bring in: all of it, or nothing.

        Raises `LedgerError` if there is a ledger at `url`.
        """
        place = database.parse(url)
        if place.get_backend_name() == "sqlite":
            database.new_file(place)
        with database.opening(place) as engine, database.writing(engine) as connection:
            _refuse_used(connection, place)
            migrations.migrate(connection)
            findings = json.dumps(task.findings, ensure_ascii=False)
            row = {"id": 1, "kind": task.kind, "findings": findings, "at": schema.now()}
            connection.execute(insert(schema.meta), row)
            ledger = cls(engine, task)
            ledger._import(connection, items, labels, answers)
        return ledger

    @staticmethod
    def check_vacant(url: str) -> None:
        """Raise `LedgerError` if a server's database cannot be reached or holds a ledger."""
        place = database.parse(url)
        with database.opening(place) as engine, database.reading(engine) as connection:
            _refuse_used(connection, place)
        engine.dispose()

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the ledger at `url`, bringing the tables of an older one up to date.

        Raises `LedgerError` if there is none, or if a newer Readloop wrote it.
        """
        place = database.parse(url)
        if place.get_backend_name() == "sqlite" and not Path(str(place.database)).is_file():
            raise LedgerError(f"There is no ledger at {place.database}; make it: `readloop init`.")
        with database.opening(place) as engine:
            _bring_up_to_date(engine)
            with database.reading(engine) as connection:
                stored = select(schema.meta.c.kind, schema.meta.c.findings)
                kind, findings = connection.execute(stored).one()
        return cls(engine, Task(kind, tuple(json.loads(findings))))

    def identity(self) -> str:
        """Twelve hex digits that tell this ledger, and copies of it, from any other."""
        with self._reading() as connection:
            made = connection.scalar(select(schema.meta.c.at))
            first = connection.scalar(
                select(schema.items.c.id).order_by(schema.items.c.seq).limit(1)
            )
        return hashlib.sha256(f"{made} {first}".encode()).hexdigest()[:12]

    @property
    def url(self) -> str:
        """The ledger's address for people: a password in it is hidden."""
        return database.shown(self._engine.url)

    def version(self) -> int:
        """A number that grows with all that is appended, but for the pulse of jobs: what was
        computed from a ledger holds until its number changes."""
        tables = [t for t in schema.metadata.sorted_tables if not t.name.startswith("job")]
        newest = [
            select(func.coalesce(func.max(*t.primary_key), 0)).scalar_subquery() for t in tables
        ]
        with self._reading() as connection:
            return sum(connection.execute(select(*newest)).one())

    def close(self) -> None:
        """Let go of the database. The ledger cannot be used afterwards."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Items, labels and answers

    def import_items(
        self, items: Iterable[Item], labels: Iterable[Label] = (), answers: Iterable[Answer] = ()
    ) -> None:
        """Bring in the items with their known labels and hidden answers: all of it, or nothing.

        Raises `LedgerError` when the ledger holds items already: splits are drawn once.
        """
        with self._writing() as connection:
            held = connection.scalar(select(func.count()).select_from(schema.items))
            if held:
                raise LedgerError(
                    f"The ledger holds {held} items already, and their splits never change; "
                    "import into a new workspace."
                )
            self._import(connection, items, labels, answers)

    def items(self, split: Split | None = None) -> list[Item]:
        """The items, of one split or all, in the order of their import."""
        query = schema.select_records(schema.items, Item).order_by(schema.items.c.seq)
        if split is not None:
            query = query.where(schema.items.c.split == split)
        return self._fetch(Item, query)

    def has_answers(self) -> bool:
        """Whether the import hid known labels, so that a simulated reader can answer."""
        with self._reading() as connection:
            return connection.execute(select(schema.answers.c.seq).limit(1)).first() is not None

    def answers(self, item_ids: Collection[str]) -> list[Answer]:
        """The hidden answers on these items, item by item in the order of `item_ids`."""
        table = schema.answers
        query = schema.select_records(table, Answer).order_by(table.c.seq)
        found: dict[str, list[Answer]] = {item_id: [] for item_id in item_ids}
        with self._reading() as connection:
            for chunk in schema.chunks(found):
                here = query.where(table.c.item_id.in_(chunk))
                for answer in schema.fetch(connection, Answer, here):
                    found[answer.item_id].append(answer)
        return [answer for answers in found.values() for answer in answers]

    def add_labels(self, labels: Iterable[Label]) -> int:
        """Append label events and return how many were new.

        A key that the ledger holds already is passed over. Each label's `round` is set to the
        latest round opened. Raises `LedgerError` (and appends nothing) for an unknown item or
        finding, for a known key that says something else, or for a mask that is missing or out of
        place; `ValueError` for a value that is not 1.0, 0.0 or NaN.
        """
        with self._writing() as connection:
            return self._add(connection, labels)

    def labels(
        self,
        before_round: int | None = None,
        splits: Collection[Split] = ("train", "validation"),
    ) -> list[Label]:
        """What readers said before a round was opened (None: until now), oldest event first.

        Where a reader answered twice about a finding of an item, the newer answer holds.
        Raises `ValueError` for "vault": those labels come from `look_into_vault` alone.
        """
        if "vault" in splits:
            raise ValueError("vault labels are read by look_into_vault alone, which counts it")
        return self._fetch(Label, label_events.latest(before_round, splits))

    def label_counts(self, before_round: int | None = None) -> dict[Split, int]:
        """How many items of each split have been labeled (the vault too: a count is no look)."""
        with self._reading() as connection:
            return label_events.count_items(connection, before_round)

    def first_labeled(self) -> list[tuple[Split, int, bool, int]]:
        """Items by split, the round that was open when they got their first label, and a count.

        The third entry says whether a label of theirs came with the import. `label_counts(r)` is
        the sum over rounds below r; the vault is counted too, which is no look.
        """
        with self._reading() as connection:
            return label_events.first_rounds(connection)

    def read_history(self) -> list[tuple[Split, HeldRead]]:
        """Every read of every reader, later ones by the same reader too, oldest first."""
        table, items = schema.reads, schema.items
        query = schema.select_records(table, HeldRead).add_columns(items.c.split)
        query = query.join(items, items.c.id == table.c.item_id).order_by(table.c.seq)
        with self._reading() as connection:
            return [(row[-1], HeldRead(*row[:-1])) for row in connection.execute(query)]

    def labeled_items(self) -> set[str]:
        """The ids of all items that hold a label event (the vault's too: that is no look)."""
        with self._reading() as connection:
            return set(connection.scalars(select(schema.labels.c.item_id).distinct()))

    def look_into_vault(self, round_number: int, model_id: str, purpose: str) -> list[Label]:
        """The vault's labels as they were when the round was opened; the look is put on record.

        The same look taken again (a run that was killed and resumed) stands there once: it shows
        nothing that was not seen. Raises `LedgerError` if the round was never opened.
        """
        look, table = VaultLook(round_number, model_id, purpose), schema.vault_looks
        with self._writing() as connection:
            round_events.refuse_unopened(connection, round_number)
            taken = select(table.c.seq).filter_by(**asdict(look)).limit(1)
            if connection.execute(taken).first() is None:
                schema.append(connection, table, [look], at=schema.now())
            return schema.fetch(connection, Label, label_events.latest(round_number, ["vault"]))

    def vault_looks(self) -> list[VaultLook]:
        """Every look into the vault, oldest first."""
        table = schema.vault_looks
        query = schema.select_records(table, VaultLook)
        return self._fetch(VaultLook, query.order_by(table.c.seq))

    # Rounds

    def open_round(self, round_: Round) -> None:
        """Open the next round: from here on, new labels belong to it.

        Raises `LedgerError` unless its number follows the latest, and that one is finished; of
        two processes that open the same round, one gets the error.
        """
        with self._writing() as connection:
            round_events.open_next(connection, round_)

    def rounds(self) -> list[Round]:
        """Every round opened so far, in order."""
        query = schema.select_records(schema.rounds, Round)
        return self._fetch(Round, query.order_by(schema.rounds.c.number))

    def finish_round(self, number: int, detail: str) -> None:
        """Close a round; `detail` is JSON. Raises `LedgerError` if it is not open."""
        with self._writing() as connection:
            round_events.finish(connection, number, detail)

    def finished(self, number: int) -> bool:
        """Whether the round was finished."""
        with self._reading() as connection:
            return round_events.is_finished(connection, number)

    def round_end(self, number: int) -> str | None:
        """The detail that the round was finished with; None while it is open or unknown."""
        ends = schema.round_ends
        with self._reading() as connection:
            return connection.scalar(select(ends.c.detail).where(ends.c.round == number))

    # What the stages of a round made

    def add_stage(
        self,
        stage: Stage,
        *,
        models: Iterable[Model] = (),
        selections: Iterable[Selection] = (),
        pseudo_labels: Iterable[PseudoLabel] = (),
        measurements: Iterable[Measurement] = (),
    ) -> bool:
        """Append a finished stage with all that it made, in one transaction.

        Returns False, with nothing written, when the round has a stage of this name already (a
        run that was killed and resumed). Raises `LedgerError` if the round is not open.
        """
        made = models, selections, pseudo_labels, measurements
        with self._writing() as connection:
            return stage_events.append(connection, stage, *made)

    def stages(self, round_number: int) -> list[Stage]:
        """The round's finished stages, by position."""
        query = stage_events.of_round(schema.stages, Stage, round_number)
        return self._fetch(Stage, query.order_by(schema.stages.c.position, schema.stages.c.seq))

    def models(
        self, round_number: int | None = None, *, control: bool = False
    ) -> list[tuple[int, Model]]:
        """The models that a round made (None: every round), with its number, oldest first.

        Those of its shadow control, which nobody is to use, are among them with `control` alone.
        """
        with self._reading() as connection:
            made = stage_events.made(connection, schema.models, Model, round_number)
        return [one for one in made if control or not one[1].stage.startswith(f"{CONTROL} ")]

    def measurements(self, round_number: int | None = None) -> list[tuple[int, Measurement]]:
        """What a round measured (None: every round), with its number, oldest first."""
        with self._reading() as connection:
            return stage_events.made(connection, schema.measurements, Measurement, round_number)

    def selections(self, round_number: int) -> list[Selection]:
        """What the round asked for, by rank."""
        query = stage_events.of_round(schema.selections, Selection, round_number)
        return self._fetch(Selection, query.order_by(schema.selections.c.rank))

    def selected(self, before_round: int | None = None) -> list[tuple[int, Selection]]:
        """What the rounds before this one asked for (None: all), by round and rank."""
        with self._reading() as connection:
            return stage_events.selected(connection, before_round)

    def pseudo_labels(
        self,
        round_number: int,
        stage: str | None = None,
        item_ids: Collection[str] | None = None,
    ) -> list[PseudoLabel]:
        """The pseudo-labels of a round, or of one stage of it, in the order they were added.

        With `item_ids`, those of these items alone. Those of the round's shadow control are given
        by the name of their stage alone.
        """
        parts = stage_events.pseudo_labels(round_number, stage, item_ids)
        return [row for part in parts for row in self._fetch(PseudoLabel, part)]

    # Which model is in use

    def promotions(self) -> list[Promotion]:
        """Every promotion and rollback, oldest first."""
        query = schema.select_records(schema.promotions, Promotion)
        return self._fetch(Promotion, query.order_by(schema.promotions.c.seq))

    def add_promotion(self, promotion: Promotion, after: int) -> None:
        """Append a decision that was made when `after` decisions were held.

        Raises `LedgerError` if others came meanwhile: it was made on what no longer holds.
        """
        with self._writing() as connection:
            held = connection.scalar(select(func.count()).select_from(schema.promotions))
            if held != after:
                raise LedgerError(
                    "Somebody promoted a model or rolled one back meanwhile: look at "
                    "`readloop models` and decide again."
                )
            schema.append(connection, schema.promotions, [promotion], at=schema.now())

    # Transactions and queries

    def _reading(self) -> AbstractContextManager[Connection]:
        return database.reading(self._engine)

    def _writing(self) -> AbstractContextManager[Connection]:
        return database.writing(self._engine)

    def _import(
        self,
        connection: Connection,
        items: Iterable[Item],
        labels: Iterable[Label],
        answers: Iterable[Answer],
    ) -> None:
        schema.append(connection, schema.items, items, at=schema.now())
        self._add(connection, labels)
        schema.append(connection, schema.answers, label_events.with_masks(self.task, answers))

    def _add(self, connection: Connection, labels: Iterable[Label]) -> int:
        return label_events.append(connection, self.task, labels, round_events.latest(connection))

    def _fetch(self, record: type[R], query: Select[Any]) -> list[R]:
        with self._reading() as connection:
            return schema.fetch(connection, record, query)


def _refuse_used(connection: Connection, place: URL) -> None:
    if migrations.version(connection) is not None:
        raise LedgerError(
            f"{database.shown(place)} holds a ledger already; choose another database."
        )


def _bring_up_to_date(engine: Engine) -> None:
    with database.reading(engine) as connection:
        version = migrations.version(connection)
    if version is None:
        raise LedgerError(f"{database.shown(engine.url)} is not a ledger; check the address.")
    if version != len(migrations.MIGRATIONS):
        with database.writing(engine) as connection:
            migrations.migrate(connection)
