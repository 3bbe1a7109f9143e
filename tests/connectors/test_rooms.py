"""The reading rooms that need no server: the shipped fake and the simulated reader."""

from __future__ import annotations

import math

from connectors.archive import ArchiveRoom
from connectors.memory import MemoryRoom
from ssl_core.records import Answer, Hint
from tests.connectors import laws


def answer(room: MemoryRoom, reader: str, item_id: str, answers: dict[str, float]) -> None:
    room.submit(item_id, answers, reader=reader)


def waiting(room: MemoryRoom, reader: str) -> list[str]:
    return [one.item_id for one in room.waiting.get(reader, [])]


def test_memory_room_obeys_the_laws():
    laws.check_room(lambda: MemoryRoom(laws.READERS), answer, waiting)


def test_memory_room_shows_hints_of_hinted_items_alone():
    room = MemoryRoom()
    hints = {item: [Hint(item, "mass", 1.0, 0.9, "m")] for item in laws.ITEMS[:2]}
    room.queue([*laws.assigned(laws.ITEMS[0], hinted=True), *laws.assigned(laws.ITEMS[1])], hints)
    assert room.hints == {laws.ITEMS[0]: hints[laws.ITEMS[0]]}


def test_memory_room_tells_outcome_and_time():
    room = MemoryRoom(["ada"])
    room.act("a", "unusable", reason="cut off", seconds=12.5)
    (read,) = laws.pulled(room)[0]
    assert (read.reader, read.outcome, read.reason) == ("ada", "unusable", "cut off")
    assert read.seconds == 12.5
    assert read.answers == ()


def archive() -> ArchiveRoom:
    known = {
        "a": [Answer("a", "effusion", 1.0), Answer("a", "mass", 0.0)],
        "b": [Answer("b", "effusion", 0.0)],
    }
    return ArchiveRoom(lambda ids: [answer for one in ids for answer in known.get(one, [])])


def test_the_simulated_reader_answers_in_order_what_it_knows():
    room = archive()
    assert laws.pulled(room)[:2] == ([], [])
    room.queue(laws.assigned("b", "nobody knows", "a", reader="archive"), {})
    reads, rejections, bookmark = laws.pulled(room)
    assert (rejections, bookmark) == ([], "")
    assert laws.said(reads) == [
        ("b", "archive", "read", {"effusion": 0.0}),
        ("a", "archive", "read", {"effusion": 1.0, "mass": 0.0}),
    ]
    assert all(read.source == "archive" and read.seconds is None for read in reads)
    assert laws.pulled(room)[0] == reads
    room.queue([], {})
    assert laws.pulled(room)[0] == []


def test_the_simulated_reader_says_nothing_of_what_it_was_not_asked():
    room = archive()
    room.queue(laws.assigned("a", reader="archive"), {})
    assert {read.item_id for read in laws.pulled(room)[0]} == {"a"}
    assert not any(math.isnan(v) for r in laws.pulled(room)[0] for _, v in r.answers)
