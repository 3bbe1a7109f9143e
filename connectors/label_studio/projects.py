"""One Label Studio project a reader: found by its marker, made when missing, mended when edited.

The marker stands in the description and, as a comment, in the labeling configuration: people edit
one of them at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from connectors.label_studio.client import Client
from connectors.label_studio.pictures import SUBFOLDER

MODEL_VERSION = "readloop"
VIEW_TITLE = "Readloop queue"
ORDERING = ["tasks:data.priority"]
OPEN_ONLY = {
    "conjunction": "and",
    "items": [
        {
            "filter": "filter:tasks:data.queue",
            "operator": "equal",
            "type": "String",
            "value": "open",
        }
    ],
}


SETTINGS = {
    "model_version": MODEL_VERSION,  # what a hint is taken from
    "show_collab_predictions": True,
    "show_annotation_history": False,
    "show_skip_button": True,
    "enable_empty_annotation": True,  # nothing ticked is an answer: nothing present (see `_own`)
    "skip_queue": "REQUEUE_FOR_OTHERS",  # what this reader skipped does not come back
    "maximum_annotations": 1,
}
INCLUDE = ",".join(
    ("id", "created_at", "description", "label_config", "total_annotations_number", *SETTINGS)
)


@dataclass(frozen=True, slots=True)
class Project:
    """A reader's project on the server, as it was found; `spares` are others of theirs.

    `made` is the moment it was made, by the server's clock; `held` its settings, of which
    `SETTINGS` are ours.
    """

    id: int
    reader: str
    made: str
    held: Mapping[str, Any]
    spares: tuple[int, ...] = ()

    @property
    def label_config(self) -> str:
        """The labeling page as it stands now."""
        return str(self.held.get("label_config") or "")

    @property
    def answered(self) -> bool:
        """Whether anybody answered anything in it."""
        return bool(self.held.get("total_annotations_number"))


def marker(workspace: str, reader: str) -> str:
    """What tells a project to be a reader's of a workspace: a line of its description."""
    return f"readloop:{workspace}:{reader}"


def marked(config: str, workspace: str, reader: str) -> str:
    """A labeling configuration with the marker as a comment after it."""
    # A comment may not hold two hyphens.
    return f"{config.strip()}\n<!-- {marker(workspace, _quoted(reader))} -->"


def _quoted(reader: str) -> str:
    return quote(reader, safe="").replace("-", "%2D")


def _own(config: str) -> dict[str, Any]:
    """The settings of a project with this page: where findings are painted, the server's page does
    not submit what holds nothing at all, since that would be no answer."""
    return SETTINGS | {"enable_empty_annotation": "<BrushLabels" not in config}


def find_projects(client: Client, workspace: str) -> dict[str, Project]:
    """The projects of a workspace by reader; of several for one reader, the oldest."""
    found: dict[str, list[Project]] = {}
    for entry in client.pages("api/projects/", include=INCLUDE):
        description = str(entry.get("description") or "")
        config = str(entry.get("label_config") or "")
        reader = _reader(workspace, description, config)
        if reader:
            one = Project(entry["id"], reader, str(entry.get("created_at") or ""), entry)
            found.setdefault(reader, []).append(one)
    return {reader: _oldest(several) for reader, several in found.items()}


def _reader(workspace: str, description: str, config: str) -> str:
    """Whose project it is, "" if nobody's."""
    prefix = marker(workspace, "")
    for line in description.splitlines():
        if line.startswith(prefix):
            return line.removeprefix(prefix)
    comment = re.search(f"<!-- {re.escape(prefix)}(\\S+) -->", config)
    return unquote(comment[1]) if comment else ""


def _oldest(several: list[Project]) -> Project:
    first, *others = sorted(several, key=lambda one: one.id)
    spares = tuple(one.id for one in others)
    return replace(first, spares=spares)


def offered(config: str) -> dict[str, frozenset[str]]:
    """The answers that a page offers, by block: what edits by hand must not change."""
    try:
        page = ElementTree.fromstring(config)
    except ElementTree.ParseError:
        return {}
    blocks = [tag for tag in page.iter() if tag.tag in ("Choices", "BrushLabels")]
    return {
        block.get("name", ""): frozenset(choice.get("value", "") for choice in block)
        for block in blocks
    }


def make_project(client: Client, workspace: str, title: str, reader: str, config: str) -> Project:
    """Make a reader's project. If the answer is lost, the next look finds it by its marker."""
    client.post("api/projects/", settings(workspace, title, reader, config))
    # With its SQLite locked, the server repeats the request by itself: then there are two, and
    # the answer names the wrong one.
    return find_projects(client, workspace)[reader]


def edits(project: Project, workspace: str, title: str, reader: str, config: str) -> dict[str, Any]:
    """The fields of a project that people edited, as they should be; its title is theirs."""
    held = project.held
    fields = {k: v for k, v in _own(config).items() if k in held and held[k] != v}
    if project.label_config.strip() != config.strip():
        fields["label_config"] = config
    if marker(workspace, reader) not in str(held.get("description") or "").splitlines():
        fields["description"] = settings(workspace, title, reader, config)["description"]
    return fields


def settings(workspace: str, title: str, reader: str, config: str) -> dict[str, Any]:
    """The fields of a reader's project: next case on submit, nobody else's answers in sight."""
    return {
        "title": f"{reader}: {title}"[:50],
        "description": f"Cases for {reader}, in order, behind the tab {VIEW_TITLE!r}. "
        "Readloop finds this project by the line below.\n" + marker(workspace, reader),
        "label_config": config,
        **_own(config),
    }


def ensure_view(client: Client, project: int) -> int:
    """The tab whose link serves the open cases by priority; made or put right if need be."""
    wanted = {"title": VIEW_TITLE, "ordering": ORDERING, "filters": OPEN_ONLY}
    for view in client.get("api/dm/views/", project=project):
        data = view.get("data") or {}
        if data.get("title") == VIEW_TITLE:
            if not _serves(data):
                client.patch(
                    f"api/dm/views/{view['id']}/", {"project": project, "data": {**data, **wanted}}
                )
            return int(view["id"])
    return int(client.post("api/dm/views/", {"project": project, "data": wanted})["id"])


def _serves(data: dict[str, Any]) -> bool:
    filters = data.get("filters") or {}
    items = [
        {key: item.get(key) for key in ("filter", "operator", "type", "value")}
        for item in filters.get("items", ())
    ]
    return data.get("ordering") == ORDERING and items == OPEN_ONLY["items"]


def ensure_storage(client: Client, project: int, folder: str) -> None:
    """Let a project serve the pictures of a folder; without, the server answers 404 for them."""
    held = client.get("api/storages/localfiles/", project=project)
    if any(storage.get("path") == folder for storage in held):
        return
    body = {"project": project, "title": SUBFOLDER, "path": folder, "use_blob_urls": True}
    client.post("api/storages/localfiles/", body)


def link(client: Client, project: int, view: int) -> str:
    """Where a reader goes on reading: the next open case, and the next on submit."""
    return f"{client.url}/projects/{project}/data?tab={view}&labeling=1"
