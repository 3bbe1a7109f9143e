"""Label Studio as a reading room: a project a reader, blind to the others and to the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from connectors.label_studio import projects
from connectors.label_studio.answers import Desk, answers
from connectors.label_studio.client import Client, Refused
from connectors.label_studio.drawn import Masks, Pictures, painted
from connectors.label_studio.page import hint_result, label_config, unasked_findings
from connectors.label_studio.tasks import arrange
from ssl_core.records import AGAIN, Assignment, Hint, Pulled, Rejection, Task, person

# A change counts from when it was made, but is seen when it is committed: look back a little.
MARGIN = timedelta(seconds=60)
PRIORITY_ZERO = 10**14  # the server orders data as text, so priorities are shifted above zero

Count = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Place:
    """A reader's project: its number, and the link that serves their next case."""

    reader: str
    project: int
    link: str


class LabelStudioRoom:
    """A `ReadingRoom` on a Label Studio server.

    `workspace` is an opaque name that tells this workspace's projects from others; `title` is for
    people. `masks` keeps what is painted; nothing painted is taken in without. Methods raise
    `ReadingRoomError` when the server cannot be reached or refuses; they may then be called again,
    whatever had been done.
    """

    def __init__(
        self,
        client: Client,
        task: Task,
        workspace: str,
        *,
        title: str,
        readers: Sequence[str],
        adjudicator: str = "",
        pictures: Pictures,
        masks: Masks | None = None,
        count: Count = lambda what, done, of: None,
    ) -> None:
        self.readers = tuple(readers)
        self.remarks: list[str] = []
        """What was mended on the server, in sentences."""
        self._client, self._task, self._workspace = client, task, workspace
        self._title, self._pictures, self._count = title, pictures, count
        self._adjudicator, self._masks = adjudicator, masks
        self._page = label_config(task)
        self._pulled: set[int] = set()  # projects whose answers were taken in as their page stands

    @property
    def name(self) -> str:
        """The room's name in the ledger: another server has a bookmark of its own."""
        return f"label_studio {self._client.url}"

    def queue(self, open_: Sequence[Assignment], hints: Mapping[str, Sequence[Hint]]) -> None:
        """Make what each reader still has to read exactly this, in order of priority."""
        found = projects.find_projects(self._client, self._workspace)
        asked: dict[str, list[Assignment]] = {reader: [] for reader in found}
        for one in sorted(open_, key=lambda a: a.priority):
            asked.setdefault(one.reader, []).append(one)
        needed = list(dict.fromkeys(one.item_id for one in open_))
        self._pictures.prepare(needed, lambda done, n: self._count("write pictures", done, n))
        for reader, assignments in asked.items():
            project = self._ready(found.get(reader), reader)
            wanted = {
                one.item_id: self._wanted(one, rank, len(assignments), hints)
                for rank, one in enumerate(assignments)
            }
            drawn = {a.item_id for a in assignments if a.hinted and _drawn(hints, a.item_id)}
            count = partial(self._count, f"queue for {reader}")
            arrange(self._client, project, wanted, count, partial(self._painted, hints, drawn))

    def pull(self, bookmark: str) -> Iterator[Pulled]:
        """What changed in every reader's project; of a page, oldest first.

        Readers who have left the workspace are heard too.
        """
        marks: dict[str, Any] = json.loads(bookmark) if bookmark else {}
        found = projects.find_projects(self._client, self._workspace)
        others = self._accounts() if len(found) > 1 else {}
        for reader in dict.fromkeys((*self._members, *found)):
            if reader in found:
                mark = marks.get(reader, {})
                if mark.get("project") != _identity(found[reader]):
                    mark = {}  # another project, perhaps another server's: all of it is new
                marks[reader] = yield from self._pull_from(found[reader], others, mark)
            elif marks.pop(reader, None):
                yield Pulled((), (_gone(reader),))
        yield Pulled((), (), json.dumps(marks, sort_keys=True) if marks else "")

    def _pull_from(
        self, project: projects.Project, others: Mapping[int, str], mark: dict[str, Any]
    ) -> Generator[Pulled, None, dict[str, Any]]:
        """Pages of one reader's project; return the mark from which the next pull goes on."""
        self._pulled.add(project.id)
        if projects.offered(project.label_config) != projects.offered(self._page):
            yield Pulled((), (_edited(project),))
        strangers = {i: other for i, other in others.items() if other != person(project.reader)}
        desk = Desk(
            project.id,
            project.reader,
            self._task,
            strangers,
            ticket=partial(self._ticket, project.reader),
            made=project.made,
            unasked=unasked_findings(self._task, projects.offered(project.label_config)),
            keep=self._masks.keep if self._masks else None,
        )
        began, changed, doubtful = self._moment(), False, list[int]()
        known = mark.get("doubtful", [])
        for page, refused in answers(self._client, desk, mark.get("since", ""), known):
            changed = changed or bool(page.reads or page.rejections)
            doubtful += refused
            yield page
        if mark and not changed and not doubtful and not known:
            return mark  # with nothing new it is as good, and spares a row
        return {"project": _identity(project), "since": began, "doubtful": sorted(doubtful)}

    def places(self) -> list[Place]:
        """The projects that are there, in the order of the readers."""
        found = projects.find_projects(self._client, self._workspace)
        return [
            Place(reader, found[reader].id, self._link(found[reader].id))
            for reader in (*self._members, *(reader + AGAIN for reader in self.readers))
            if reader in found
        ]

    @property
    def _members(self) -> tuple[str, ...]:
        return (*self.readers, *([self._adjudicator] if self._adjudicator else []))

    def _link(self, project: int) -> str:
        view = projects.ensure_view(self._client, project)
        return projects.link(self._client, project, view)

    def _ready(self, project: projects.Project | None, reader: str) -> int:
        """The reader's project with its tab, pictures and page, made or mended."""
        config = projects.marked(self._page, self._workspace, reader)
        if project is None:
            project = projects.make_project(
                self._client, self._workspace, self._title, reader, config
            )
            self.remarks.append(f"Made the project {project.id} for {reader}.")
        else:
            self._mend(project, reader, config)
        for spare in project.spares:
            self.remarks.append(
                f"{reader} has another project, {spare}, beside {project.id}: nothing is taken "
                f"from it; delete it in Label Studio."
            )
        projects.ensure_view(self._client, project.id)
        if self._pictures.folder is not None:
            folder = str(self._pictures.folder.resolve())
            projects.ensure_storage(self._client, project.id, folder)
        return project.id

    def _mend(self, project: projects.Project, reader: str, config: str) -> None:
        edits = projects.edits(project, self._workspace, self._title, reader, config)
        asks = projects.offered(project.label_config) == projects.offered(config)
        if not asks and project.answered and project.id not in self._pulled:
            # Once it is restored nobody could tell which answers were given on another page.
            self.remarks.append(
                f"The labeling page of {reader}'s project {project.id} was edited by hand: "
                "`readloop sync` takes in what was answered on it, and restores it."
            )
            edits.pop("label_config", None)
        for field, value in edits.items():
            name = "labeling page" if field == "label_config" else field.replace("_", " ")
            what = f"The {name} of {reader}'s project {project.id}"
            try:
                self._client.patch(f"api/projects/{project.id}/", {field: value})
            except Refused as error:
                while_used = (
                    "while answers use what was edited: delete those answers, which are not taken "
                    "as they are, and queue again"
                )
                why = while_used if field == "label_config" else "by Readloop: do it there"
                self.remarks.append(
                    f"{what} was edited by hand and cannot be restored {why}. {error}"
                )
            else:
                self.remarks.append(f"{what} was not Readloop's any more: it is restored.")

    def _wanted(
        self, one: Assignment, rank: int, of: int, hints: Mapping[str, Sequence[Hint]]
    ) -> dict[str, Any]:
        shown = {h.finding: h.value for h in hints.get(one.item_id, ())} if one.hinted else {}
        prediction = {
            "model_version": projects.MODEL_VERSION,
            # Without a result it fills in nothing: the read is blind. The score is that of the
            # order alone, since a strategy's own would tell the random control from its choice.
            "result": hint_result(self._task, shown) if shown else [],
            "score": 1.0 - rank / of,
        }
        data = {
            "image": self._pictures.url(one.item_id),
            "external_id": one.item_id,
            "priority": f"{PRIORITY_ZERO + one.priority:015d}",
            "queue": "open",
            "ticket": self._ticket(one.reader, one.item_id),
        }
        return {"data": data, "predictions": [prediction]}

    def _painted(
        self,
        hints: Mapping[str, Sequence[Hint]],
        drawn: Collection[str],
        item_id: str,
        task: dict[str, Any],
    ) -> dict[str, Any]:
        """A task with the model's masks on its picture, if its reader is shown any."""
        if item_id not in drawn or self._masks is None:
            return task
        (prediction,) = task["predictions"]
        result = painted(self._task, hints[item_id], item_id, self._pictures, self._masks)
        return {**task, "predictions": [{**prediction, "result": result}]}

    def _ticket(self, reader: str, item_id: str) -> str:
        """Tells a task that was put there from one that was made or copied by hand."""
        asked = json.dumps([self._workspace, reader, item_id])
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def _accounts(self) -> dict[int, str]:
        """Which accounts on the server are readers' own, by name or address."""
        owned = {}
        ours = self._client.get("api/current-user/whoami").get("id")
        for user in self._client.get("api/users/"):
            address = str(user.get("email") or "")
            names = [address]
            if user["id"] != ours:  # several may share the account that the token is of
                names += [address.partition("@")[0], str(user.get("username") or "")]
            for reader in self._members:
                if reader in names:
                    owned[user["id"]] = reader
        return owned

    def _moment(self) -> str:
        """A moment before which nothing is still on its way, by the server's clock."""
        now = self._client.now
        return (now - MARGIN).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if now else ""


def _drawn(hints: Mapping[str, Sequence[Hint]], item_id: str) -> bool:
    return any(hint.mask for hint in hints.get(item_id, ()))


def _identity(project: projects.Project) -> str:
    """Tells a project from one with the same number on another server, or made anew."""
    return f"{project.id} made {project.made}"


def _gone(reader: str) -> Rejection:
    return Rejection(
        f"{reader}'s project",
        "it is not on the server any more: what was synced is kept, and the project is made anew "
        "when there is something to read",
    )


def _edited(project: projects.Project) -> Rejection:
    return Rejection(
        f"{project.reader}'s project {project.id}",
        "its labeling page was edited by hand: what it does not ask about counts as unknown in "
        "the answers that come now; the page is restored with the next queue",
    )
