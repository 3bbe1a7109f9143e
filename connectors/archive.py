"""A simulated reader: answers every question at once from labels that were known all along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ssl_core.records import Answer, Item, Label, Selection

READER = "archive"


class ArchiveRoom:
    """The reading room of an archive: what is queued is answered by the next `pull`.

    `answers` looks up the hidden labels of some items; it is all that this reader knows.
    """

    def __init__(self, answers: Callable[[Sequence[str]], Iterable[Answer]]) -> None:
        self._answers = answers
        self._queued: dict[str, None] = {}

    def queue(self, round_number: int, items: Sequence[Item], why: Sequence[Selection]) -> None:
        """Remember what was asked, in order; asking twice changes nothing."""
        self._queued.update(dict.fromkeys(item.id for item in items))

    def pull(self) -> Iterable[Label]:
        """The hidden labels of everything asked, in the order of asking."""
        known: dict[str, list[Answer]] = {}
        for answer in self._answers(list(self._queued)):
            known.setdefault(answer.item_id, []).append(answer)
        for item_id in self._queued:
            for a in known.get(item_id, ()):
                key = f"archive:{a.item_id}:{a.finding}"
                yield Label(a.item_id, a.finding, a.value, READER, "archive", key)
