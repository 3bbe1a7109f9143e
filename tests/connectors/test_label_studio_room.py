"""Label Studio as a reading room, against the real server."""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path

import numpy as np
import pytest

from connectors.label_studio import projects
from connectors.label_studio.client import Client
from connectors.label_studio.page import hint_result
from connectors.label_studio.pictures import LocalFiles
from connectors.label_studio.room import LabelStudioRoom
from tests.connectors import laws


@pytest.fixture(scope="module")
def client(label_studio):
    return Client(label_studio.url, label_studio.token)


def room_of(client, media: Path, *, workspace: str = "", task=laws.TASK, **more) -> LabelStudioRoom:
    return LabelStudioRoom(
        client,
        task,
        workspace or secrets.token_hex(6),
        title="laws",
        readers=laws.READERS,
        pictures=LocalFiles(media, lambda item_id: np.zeros((8, 8, 3), np.uint8)),
        **more,
    )


def project_of(client: Client, room: LabelStudioRoom, reader: str) -> int:
    return projects.find_projects(client, room._workspace)[reader].id


def waiting(client: Client, room: LabelStudioRoom, reader: str) -> list[str]:
    """What the reader's link serves: the tab's tasks in its order, less those that are done."""
    place = next((p for p in room.places() if p.reader == reader), None)
    if place is None:
        return []
    view = place.link.partition("tab=")[2].partition("&")[0]
    tasks = client.get("api/tasks/", view=view, page_size=100, fields="all")["tasks"]
    undone = [t for t in tasks if not t["total_annotations"] and not t["cancelled_annotations"]]
    return [t["data"]["external_id"] for t in undone]


def task_number(client: Client, room: LabelStudioRoom, reader: str, item_id: str) -> int:
    found = client.get("api/tasks/", project=project_of(client, room, reader), page_size=100)
    (number,) = [t["id"] for t in found["tasks"] if t["data"]["external_id"] == item_id]
    return number


def submit(client: Client, room: LabelStudioRoom, reader: str, item_id: str, **body) -> int:
    number = task_number(client, room, reader, item_id)
    return client.post(f"api/tasks/{number}/annotations/", {"lead_time": 4.5, **body})["id"]


def answer(client: Client, room: LabelStudioRoom, reader: str, item_id: str, answers) -> int:
    return submit(client, room, reader, item_id, result=hint_result(laws.TASK, answers))


@pytest.mark.parametrize("law", laws.ROOM_LAWS, ids=lambda law: law.__name__)
def test_label_studio_obeys_the_laws(client, label_studio, law):
    law(
        room_of(client, label_studio.media),
        lambda *told: answer(client, *told),
        lambda *told: waiting(client, *told),
    )
