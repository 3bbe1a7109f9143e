"""What every `ImageSource` and every `ReadingRoom` must do, whatever is behind it.

A test module calls `check_source(make)` with a function that builds a source holding the given
pictures, and `check_room(make, answer, waiting)` with one that builds an empty room.
"""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ssl_core.errors import ImageError
from ssl_core.records import Assignment, Read, Rejection, Task

LEAVING = ["/etc/hostname", "../outside.png", "a/../../outside.png", "a/../one.png"]
NOT_THERE = [
    "missing.png",
    "no/such/folder.png",
    "",
    ".",
    "one.png\0",
    "one\nline.png",
    "\udc80.png",
]


def pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"one.png": (1, 1), "a/wide.png": (3, 17), "a/tall.png": (19, 2), "b.png": (8, 8)}
    images = {
        name: rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for name, shape in shapes.items()
    }
    return images | {"a/copy of b.png": images["b.png"]}


def check_source(make) -> None:
    source, images = make(pictures()), pictures()
    for law in SOURCE_LAWS:
        law(source, images)
    same = make(pictures())
    assert [same.digest(path) for path in images] == [source.digest(path) for path in images]


def reads_what_was_put_in(source, images) -> None:
    for path, image in images.items():
        pixels = source.read(path)
        assert pixels.dtype == np.uint8
        assert pixels.shape == image.shape
        np.testing.assert_array_equal(pixels, image)


def a_reading_is_the_callers_own(source, images) -> None:
    for path, image in images.items():
        source.read(path)[:] = 7
        np.testing.assert_array_equal(source.read(path), image)


def digest_names_the_content(source, images) -> None:
    digests = {path: source.digest(path) for path in images}
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests.values())
    assert digests["b.png"] == digests["a/copy of b.png"]
    assert len(set(digests.values())) == len(images) - 1


def refuses_with_one_sentence(source, images) -> None:
    for path in LEAVING + NOT_THERE:
        for method in (source.read, source.digest):
            with pytest.raises(ImageError) as caught:
                method(path)
            assert repr(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def threads_may_share_it(source, images) -> None:
    paths = list(images) * 20
    with ThreadPoolExecutor(4) as pool:
        for path, pixels in zip(paths, pool.map(source.read, paths), strict=True):
            np.testing.assert_array_equal(pixels, images[path])


SOURCE_LAWS = [
    reads_what_was_put_in,
    a_reading_is_the_callers_own,
    digest_names_the_content,
    refuses_with_one_sentence,
    threads_may_share_it,
]


TASK = Task("multi_label", ("effusion", "mass"))
READERS = ("ana", "ben")
ITEMS = tuple(f"{number:032x}" for number in range(1, 6))


def assigned(*item_ids: str, reader: str = "ana", first: int = 0, **more) -> list[Assignment]:
    return [
        Assignment(item_id, reader, 1, first + rank, **more)
        for rank, item_id in enumerate(item_ids)
    ]


def pulled(room, bookmark: str = "") -> tuple[list[Read], list[Rejection], str]:
    """All pages of a pull as one, less what says that nothing was said."""
    pages = list(room.pull(bookmark))
    reads = [read for page in pages for read in page.reads if read.outcome != "withdrawn"]
    rejections = [one for page in pages for one in page.rejections]
    return reads, rejections, next((p.bookmark for p in reversed(pages) if p.bookmark), bookmark)


def said(reads) -> list[tuple]:
    """Who said what of which item, less what differs from room to room."""
    return [(r.item_id, r.reader, r.outcome, dict(r.answers)) for r in reads]


def check_room(make, answer, waiting) -> None:
    """`make()` gives an empty room of READERS for TASK that knows ITEMS.

    `answer(room, reader, item_id, answers)` plays a reader; `waiting(room, reader)` lists the item
    ids in front of one, in the order in which they would be read.
    """
    for law in ROOM_LAWS:
        law(make(), answer, waiting)


def an_empty_room_says_nothing(room, answer, waiting) -> None:
    assert pulled(room)[:2] == ([], [])
    room.queue([], {})
    assert pulled(room)[:2] == ([], [])
    room.queue(assigned(*ITEMS[:2]), {})
    assert pulled(room)[:2] == ([], [])


def readers_see_their_own_queue_in_order(room, answer, waiting) -> None:
    room.queue([*assigned(*ITEMS[:3]), *assigned(ITEMS[3], ITEMS[1], reader="ben")], {})
    assert waiting(room, "ana") == list(ITEMS[:3])
    assert waiting(room, "ben") == [ITEMS[3], ITEMS[1]]


def queueing_twice_is_once(room, answer, waiting) -> None:
    for _ in range(3):
        room.queue(assigned(*ITEMS[:3]), {})
    assert waiting(room, "ana") == list(ITEMS[:3])


def a_newer_selection_comes_first(room, answer, waiting) -> None:
    room.queue(assigned(*ITEMS[:2]), {})
    newer = assigned(ITEMS[2], ITEMS[3], first=-10)
    room.queue([*newer, *assigned(*ITEMS[:2])], {})
    assert waiting(room, "ana") == [ITEMS[2], ITEMS[3], ITEMS[0], ITEMS[1]]


def another_order_is_taken_up(room, answer, waiting) -> None:
    room.queue(assigned(*ITEMS[:3]), {})
    room.queue(assigned(ITEMS[2], ITEMS[0], ITEMS[1]), {})
    assert waiting(room, "ana") == [ITEMS[2], ITEMS[0], ITEMS[1]]


def what_is_closed_leaves_and_may_come_back(room, answer, waiting) -> None:
    room.queue(assigned(*ITEMS[:3]), {})
    room.queue(assigned(ITEMS[0], ITEMS[2]), {})
    assert waiting(room, "ana") == [ITEMS[0], ITEMS[2]]
    room.queue(assigned(*ITEMS[:3]), {})
    assert waiting(room, "ana") == list(ITEMS[:3])
    room.queue([], {})
    assert waiting(room, "ana") == []


def answers_come_oldest_first(room, answer, waiting) -> None:
    room.queue([*assigned(*ITEMS[:2]), *assigned(ITEMS[0], reader="ben")], {})
    first, second = {"effusion": 1.0, "mass": 0.0}, {"effusion": 0.0, "mass": 0.0}
    answer(room, "ana", ITEMS[1], first)
    answer(room, "ben", ITEMS[0], second)
    answer(room, "ana", ITEMS[0], first)
    reads, rejections, _ = pulled(room)
    assert not rejections  # rooms may tell one reader's after another's
    assert [one for one in said(reads) if one[1] == "ana"] == [
        (ITEMS[1], "ana", "read", first),
        (ITEMS[0], "ana", "read", first),
    ]
    assert [one for one in said(reads) if one[1] == "ben"] == [(ITEMS[0], "ben", "read", second)]
    assert len({read.key for read in reads}) == 3


def pulling_twice_tells_the_same(room, answer, waiting) -> None:
    room.queue(assigned(*ITEMS[:2]), {})
    answer(room, "ana", ITEMS[0], {"effusion": 1.0, "mass": 1.0})
    assert pulled(room)[0] == pulled(room)[0]


def a_bookmark_leaves_out_what_is_kept(room, answer, waiting) -> None:
    """After a bookmark nothing new is told; what is told again has the key it had."""
    room.queue(assigned(*ITEMS[:2]), {})
    answer(room, "ana", ITEMS[0], {"effusion": 1.0, "mass": 0.0})
    before, _, bookmark = pulled(room)
    answer(room, "ana", ITEMS[1], {"effusion": 0.0, "mass": 0.0})
    after, _, _ = pulled(room, bookmark)
    new = [read for read in after if read.key not in {one.key for one in before}]
    assert [read.item_id for read in new] == [ITEMS[1]]


def cannot_tell_is_nan(room, answer, waiting) -> None:
    room.queue(assigned(ITEMS[0]), {})
    answer(room, "ana", ITEMS[0], {"effusion": math.nan, "mass": 1.0})
    (read,) = pulled(room)[0]
    assert math.isnan(dict(read.answers)["effusion"])
    assert dict(read.answers)["mass"] == 1.0


def what_was_read_stays_read(room, answer, waiting) -> None:
    """Closing and asking again neither loses an answer nor asks for it twice."""
    room.queue(assigned(*ITEMS[:2]), {})
    answer(room, "ana", ITEMS[0], {"effusion": 1.0, "mass": 0.0})
    room.queue(assigned(ITEMS[1]), {})
    room.queue([], {})
    reads, rejections, _ = pulled(room)
    assert (len(reads), rejections) == (1, [])


ROOM_LAWS = [
    an_empty_room_says_nothing,
    readers_see_their_own_queue_in_order,
    queueing_twice_is_once,
    a_newer_selection_comes_first,
    another_order_is_taken_up,
    what_is_closed_leaves_and_may_come_back,
    answers_come_oldest_first,
    pulling_twice_tells_the_same,
    a_bookmark_leaves_out_what_is_kept,
    cannot_tell_is_nan,
    what_was_read_stays_read,
]
