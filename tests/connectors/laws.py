"""What every `ImageSource` and every `ReadingRoom` must do, whatever is behind it.

A test module calls `check_source(make)` with a function that builds a source holding the given
pictures, and `check_room(make, answer)` with one that builds an empty room.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from ssl_core.errors import ImageError
from ssl_core.records import Item, Selection

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


def items(*ids: str) -> list[Item]:
    return [Item(item_id, f"patient {item_id}", "train", f"{item_id}.png") for item_id in ids]


def reasons(*ids: str) -> list[Selection]:
    return [
        Selection(item_id, rank, "strategy", "margin", 0.5, 1.0, 0.0, "nearly even")
        for rank, item_id in enumerate(ids)
    ]


def check_room(make, answer) -> None:
    """`answer(room, item_id, finding, value)` plays a reader."""
    for law in (an_empty_room_says_nothing, answers_come_oldest_first, queueing_twice_is_once):
        law(make(), answer)


def an_empty_room_says_nothing(room, answer) -> None:
    assert list(room.pull()) == []
    room.queue(1, items("a"), reasons("a"))
    room.queue(2, [], [])
    assert list(room.pull()) == []


def answers_come_oldest_first(room, answer) -> None:
    room.queue(1, items("a", "b"), reasons("a", "b"))
    answer(room, "b", "effusion", 1.0)
    before = list(room.pull())
    answer(room, "a", "effusion", 0.0)
    answer(room, "b", "effusion", 0.0)  # a second read of the same item is an event of its own
    labels = list(room.pull())
    assert labels[:1] == before
    assert [(one.item_id, one.value) for one in labels] == [("b", 1.0), ("a", 0.0), ("b", 0.0)]
    assert len({one.key for one in labels}) == 3
    assert list(room.pull()) == labels
    assert all(one.round == 0 for one in labels)  # the ledger sets it


def queueing_twice_is_once(room, answer) -> None:
    room.queue(1, items("a", "b"), reasons("a", "b"))
    answer(room, "a", "effusion", 1.0)
    labels = list(room.pull())
    room.queue(1, [replace(one, group="other") for one in items("a", "b")], reasons("a", "b"))
    assert list(room.pull()) == labels
