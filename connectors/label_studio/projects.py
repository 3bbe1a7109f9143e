"""One Label Studio project a reader: found by its marker, made when missing, mended when edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Project:
    """A reader's project on the server, as it was found."""

    id: int
    reader: str
    label_config: str


def marker(workspace: str, reader: str) -> str:
    """What tells a project to be a reader's of a workspace: a line of its description."""
    return f"readloop:{workspace}:{reader}"


def find_projects(client: Client, workspace: str) -> dict[str, Project]:
    """The projects of a workspace by reader; of several for one reader, the oldest."""
    found: dict[str, Project] = {}
    prefix = marker(workspace, "")
    for entry in client.pages("api/projects/", include="id,description,label_config"):
        for line in str(entry.get("description") or "").splitlines():
            reader = line.removeprefix(prefix)
            if reader == line:
                continue
            if reader not in found or entry["id"] < found[reader].id:
                found[reader] = Project(entry["id"], reader, str(entry.get("label_config") or ""))
    return found


def make_project(client: Client, workspace: str, title: str, reader: str, config: str) -> Project:
    """Make a reader's project. If the answer is lost, the next look finds it by its marker."""
    made = client.post("api/projects/", settings(workspace, title, reader, config))
    return Project(made["id"], reader, config)


def settings(workspace: str, title: str, reader: str, config: str) -> dict[str, Any]:
    """The fields of a reader's project: next case on submit, nobody else's answers in sight."""
    return {
        "title": f"{reader}: {title}"[:50],
        "description": f"Cases for {reader}, in order, behind the tab {VIEW_TITLE!r}. "
        "Readloop finds this project by the line below.\n" + marker(workspace, reader),
        "label_config": config,
        "model_version": MODEL_VERSION,  # what a hint is taken from
        "show_collab_predictions": True,
        "show_annotation_history": False,
        "show_skip_button": True,
        "enable_empty_annotation": True,  # nothing ticked is an answer: nothing present
        "skip_queue": "REQUEUE_FOR_OTHERS",  # what this reader skipped does not come back
        "maximum_annotations": 1,
    }


def ensure_view(client: Client, project: int) -> int:
    """The tab whose link serves the open cases by priority; put right if it was edited."""
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
