"""A simulated reader: answers every question at once from labels that were known all along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ssl_core.records import Answer, Assignment, Hint, Pulled, Read

READER = "archive"


class ArchiveRoom:
    """The reading room of an archive: what stands in its queue is answered by the next `pull`.

    `answers` looks up the hidden labels of some items; it is all that this reader knows. An item
    of which it knows nothing stays unread.
    """

    name = READER
    readers = (READER,)

    def __init__(self, answers: Callable[[Sequence[str]], Iterable[Answer]]) -> None:
        self._answers = answers
        self._open: list[str] = []

    def queue(self, open_: Sequence[Assignment], hints: Mapping[str, Sequence[Hint]]) -> None:
        """Remember what is to be read, in order; this reader is not swayed by hints."""
        self._open = [a.item_id for a in sorted(open_, key=lambda a: a.priority)]

    def pull(self, bookmark: str) -> Iterable[Pulled]:
        """The hidden labels of everything in the queue, in its order."""
        known: dict[str, list[Answer]] = {item_id: [] for item_id in self._open}
        for answer in self._answers(self._open):
            known[answer.item_id].append(answer)
        yield Pulled(tuple(_read(item_id, said) for item_id, said in known.items() if said))


def _read(item_id: str, said: Sequence[Answer]) -> Read:
    answers = tuple((a.finding, a.value) for a in said)
    masks = tuple((a.finding, a.mask) for a in said if a.mask is not None)
    return Read(f"archive:{item_id}", item_id, READER, "archive", answers=answers, masks=masks)
