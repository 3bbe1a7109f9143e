"""What goes wrong between us and Label Studio, on the real server behind a proxy that spoils it."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connectors.label_studio import projects, tasks
from connectors.label_studio.client import Client
from connectors.label_studio.page import hint_result
from ssl_core.errors import ReadingRoomError
from ssl_core.readers import reading
from ssl_core.workspace import open_workspace
from tests import toy
from tests.connectors import laws
from tests.connectors.test_label_studio_room import (
    ONE,
    THREE,
    TWO,
    YES,
    answer,
    draft,
    outcomes,
    rejected,
    room_of,
    submit,
    task_number,
    tasks_of,
    waiting,
)
from tests.fault_proxy import Fault, html_page, proxied

ITEMS = tuple(f"{number:032x}" for number in range(1, 41))
CHUNK = 20
# Forked from a process that has imported everything and runs nothing: a child takes no second.
CHILDREN = multiprocessing.get_context("forkserver")
# pytest knows this module by another name; here it is named for what it imports.
CHILDREN.set_forkserver_preload(
    ["tests.connectors.test_label_studio_faults", "label_studio_sdk.client"]
)


@pytest.fixture(scope="module")
def proxy(label_studio):
    with proxied(label_studio.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def client(label_studio):
    """Straight to the server."""
    return Client(label_studio.url, label_studio.token)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(tasks, "CHUNK", CHUNK)
    monkeypatch.setattr(tasks, "SETTLE_SECONDS", 0.05)


class Desk:
    """A workspace of ana's, through the proxy and straight."""

    def __init__(self, proxy, label_studio, client) -> None:
        proxy.script()
        self.proxy, self.client, self.name = proxy, client, secrets.token_hex(6)
        spoilt = Client(proxy.url, label_studio.token)
        self.room = room_of(spoilt, label_studio.media, workspace=self.name, readers=("ana",))
        self.straight = room_of(client, label_studio.media, workspace=self.name, readers=("ana",))

    def numbers(self) -> list[int]:
        """All projects of the workspace."""
        listed = self.client.pages("api/projects/", include="id,description")
        mark = projects.marker(self.name, "ana")
        return [one["id"] for one in listed if mark in (one.get("description") or "")]

    @property
    def project(self) -> int:
        number, *spares = sorted(self.numbers())
        # The server makes two at one request when its SQLite was locked; the second is not used.
        assert not [task for spare in spares for task in self._tasks(project=spare)]
        return number

    def tasks(self) -> list[dict]:
        found = self._tasks(project=self.project)
        return sorted(found, key=lambda task: task["id"])

    def _tasks(self, **where) -> list[dict]:
        return self.client.get("api/tasks/", page_size=1000, include="id,data", **where)["tasks"]

    def check(self, *items: str) -> None:
        """One project, with its tab and storage; each item open once, in order; no double."""
        number = self.project
        (view,) = self.client.get("api/dm/views/", project=number)
        assert view["data"]["title"] == projects.VIEW_TITLE
        assert [t["data"]["external_id"] for t in self._tasks(view=view["id"])] == list(items)
        held = [t["data"] for t in self._tasks(project=number)]
        assert len({data["external_id"] for data in held}) == len(held)
        assert {d["external_id"] for d in held if d["queue"] == "open"} == set(items)
        assert len(self.client.get("api/storages/localfiles/", project=number)) == 1


@pytest.fixture
def desk(proxy, label_studio, client):
    return Desk(proxy, label_studio, client)


def assigned(count: int = len(ITEMS)):
    """The items last first, so that the order is not that of their making."""
    return laws.assigned(*reversed(ITEMS[:count]))


def queue_until_done(desk: Desk, questions) -> list[str]:
    """Queue again after each refusal, as people do; what was said meanwhile."""
    told: list[str] = []
    while len(told) < 5:
        try:
            desk.room.queue(questions, {})
            break
        except ReadingRoomError as error:
            told.append(str(error))
    assert not [text for text in told if "\n" in text]
    return told


# Pushing ------------------------------------------------------------------------------------------

POSTS = 3 + len(ITEMS) // CHUNK  # project, tab, storage, and the tasks


def test_how_many_requests_a_push_takes(desk):
    desk.room.queue(assigned(), {})
    assert desk.proxy.count("POST") == POSTS
    assert len(desk.proxy.requests) == POSTS + 7  # looks before, between and after
    desk.check(*reversed(ITEMS))
    desk.room.queue(assigned(), {})
    assert desk.proxy.count("POST") == POSTS  # nothing is missing
    assert desk.proxy.count("PATCH") == 0


@pytest.mark.parametrize("nth", range(1, POSTS + 1))
def test_an_answer_lost_after_the_server_did_it(desk, nth):
    desk.proxy.script(Fault("drop_after", method="POST", nth=nth))
    told = queue_until_done(desk, assigned())
    assert len(told) == (1 if nth <= 3 else 0)  # tasks are looked for and go on by themselves
    assert all("broke off" in one for one in told)
    desk.check(*reversed(ITEMS))


SPOILT = {
    "never heard": Fault("drop_before", method="POST", path="/import"),
    "broken off": Fault("half", method="POST", path="/import"),
    "500": Fault("answer", method="POST", path="/import"),
    "502 with a page": Fault("answer", method="POST", path="/import", status=502, body="<h1>"),
    "429": Fault("answer", method="POST", path="/import", status=429),
    "sign-in page": html_page(method="POST", path="/import"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_import_that_is_spoilt(desk, name):
    desk.proxy.script(Fault(**{**vars(SPOILT[name]), "nth": 2, "times": 2, "seen": 0}))
    assert queue_until_done(desk, assigned()) == []
    desk.check(*reversed(ITEMS))


def test_a_server_that_keeps_failing(desk):
    desk.proxy.script(Fault("answer", method="POST", path="/import", times=99))
    with pytest.raises(ReadingRoomError, match=r"failed \(500\).*nothing is lost"):
        desk.room.queue(assigned(5), {})
    assert desk.proxy.count("POST", "/import") == tasks.ATTEMPTS
    desk.proxy.script()
    desk.room.queue(assigned(5), {})
    desk.check(*reversed(ITEMS[:5]))


def test_an_import_that_the_server_does_after_we_gave_up(desk, label_studio):
    desk.proxy.script(Fault("ask_late", method="POST", path="/import", seconds=2.0))
    hasty = Client(desk.proxy.url, label_studio.token, timeout=1.2)
    room = room_of(hasty, label_studio.media, workspace=desk.name, readers=("ana",))
    with pytest.raises(ReadingRoomError, match="took too long"):
        room.queue(assigned(20), {})
    assert desk.proxy.count("POST", "/import") == 1  # not asked twice
    desk.straight.queue(assigned(20), {})  # too early: nothing is there yet
    desk.proxy.settle()
    assert len(desk.tasks()) == 40
    desk.straight.queue(assigned(20), {})
    desk.check(*reversed(ITEMS[:20]))


def push(url: str, token: str, media: Path, name: str, count: int) -> None:
    tasks.CHUNK = CHUNK
    room = room_of(Client(url, token), media, workspace=name, readers=("ana",))
    room.queue(assigned(count), {})


@pytest.mark.parametrize("nth", range(1, POSTS + 7 + 1))
def test_a_push_that_is_killed_at_any_request(desk, label_studio, nth):
    """The server does what the n-th request asked, and nobody is left to hear of it."""
    child = CHILDREN.Process(
        target=push,
        args=(desk.proxy.url, label_studio.token, label_studio.media, desk.name, len(ITEMS)),
    )

    def kill() -> None:
        os.kill(child.pid, signal.SIGKILL)

    desk.proxy.script(Fault("call", nth=nth, action=kill))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    desk.proxy.settle()
    desk.straight.queue(assigned(), {})
    desk.check(*reversed(ITEMS))


def test_two_pushes_at_once_with_nothing_between_them(desk, label_studio):
    """Doubles there may be, and they are gone after the next push at the latest; reads stay."""
    desk.room.queue([], {})
    desk.straight.queue(laws.assigned(ITEMS[0]), {})  # the project is there
    desk.proxy.script(Fault("delay", path="/api/tasks/", seconds=0.5, times=2))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: desk.room.queue(assigned(20), {}), range(2)))
    doubled = [t for t in desk.tasks() if t["data"]["external_id"] == ITEMS[5]]
    assert len(doubled) in (1, 2)
    desk.client.post(f"api/tasks/{doubled[-1]['id']}/annotations/", {"result": []})
    desk.straight.queue(assigned(20), {})
    assert len(desk.tasks()) == 20
    assert outcomes(laws.pulled(desk.straight)[0]) == [(ITEMS[5], "read")]
    assert waiting(desk.client, desk.straight) == [i for i in ITEMS[19::-1] if i != ITEMS[5]]


def test_two_projects_of_one_reader(desk):
    desk.room.queue(assigned(3), {})
    first = desk.project
    double = desk.client.get(f"api/projects/{first}/")
    body = {key: double[key] for key in ("title", "description", "label_config")}
    second = desk.client.post("api/projects/", body)["id"]
    desk.room.remarks.clear()
    desk.room.queue(assigned(3), {})
    assert desk.room.remarks == [
        f"ana has another project, {second}, beside {first}: nothing is taken from it; delete it "
        "in Label Studio."
    ]
    desk.client.delete(f"api/projects/{second}/")
    desk.check(*reversed(ITEMS[:3]))


# A workspace on the server ------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path):
    root = toy.make(
        tmp_path / "W",
        toy.TASKS["multi_label"],
        items=12,
        reading={"room": "label_studio", "readers": ["ana", "ben"], "backup": False},
    )
    return open_workspace(root)


def workspace_room(workspace, url: str, token: str, media: Path):
    return room_of(
        Client(url, token),
        media,
        workspace=workspace.ledger.identity(),
        task=workspace.ledger.task,
        readers=workspace.config.reading.readers,
    )


def queue_workspace(root: Path, url: str, token: str, media: Path) -> None:
    workspace = open_workspace(root)
    reading.queue(workspace, workspace_room(workspace, url, token, media))


def test_two_commands_at_once_queue_once(workspace, label_studio, client):
    args = (workspace.root, label_studio.url, label_studio.token, label_studio.media)
    children = [CHILDREN.Process(target=queue_workspace, args=args) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    room = workspace_room(workspace, *args[1:])
    asked = [item.id for split in ("validation", "vault") for item in workspace.ledger.items(split)]
    for reader, found in projects.find_projects(client, workspace.ledger.identity()).items():
        assert found.spares == ()
        assert sorted(waiting(client, room, reader)) == sorted(asked)
        assert len(tasks_of(client, found.id)) == len(asked)


@pytest.fixture
def read_workspace(workspace, label_studio, client):
    """A workspace with two items read and one skipped by ana, not synced."""
    room = workspace_room(workspace, label_studio.url, label_studio.token, label_studio.media)
    reading.queue(workspace, room)
    items = waiting(client, room, "ana")
    spot = {"Spot": 1.0, "Bar": 0.0, "Rare": 0.0}
    for item_id in items[:2]:
        result = hint_result(workspace.ledger.task, spot)
        submit(client, room, "ana", item_id, result=result)
    submit(client, room, "ana", items[2], result=[], was_cancelled=True)
    return workspace, room, items


def test_a_sync_that_breaks_off_between_pages(read_workspace, label_studio, proxy, monkeypatch):
    workspace, room, _ = read_workspace
    monkeypatch.setattr(tasks, "PAGE", 2)
    args = (label_studio.token, label_studio.media)
    spoilt = workspace_room(workspace, proxy.url, *args)
    proxy.script(Fault("half", path="/api/tasks/", nth=2, times=99))
    with pytest.raises(ReadingRoomError, match="broke off"):
        reading.sync(workspace, spoilt)
    kept = len(workspace.ledger.reading.reads())
    assert kept == 2  # the first page
    assert workspace.ledger.reading.bookmark(room.name) == ""
    came = reading.sync(workspace, room)
    assert (came.reads, came.rejections) == (1, [])
    history = toy.history(workspace.root)
    again = reading.sync(workspace, room)
    assert (again.reads, again.rejections) == (0, [])
    everything = reading.sync(workspace, room, everything=True)
    assert (everything.reads, everything.rejections) == (0, [])
    now = toy.history(workspace.root)
    assert {k: v for k, v in now.items() if k != "bookmarks"} == {
        k: v for k, v in history.items() if k != "bookmarks"
    }


def test_a_project_deleted_by_hand_comes_back_with_what_is_unread(read_workspace, client):
    workspace, room, items = read_workspace
    reading.sync(workspace, room)
    labels = toy.history(workspace.root)["labels"]
    place = next(p for p in room.places() if p.reader == "ana")
    client.delete(f"api/projects/{place.project}/")
    room.remarks.clear()
    came = reading.sync(workspace, room)
    assert [one.place for one in came.rejections] == ["ana's project"]
    assert "what was synced is kept" in came.rejections[0].reason
    assert room.remarks[0].startswith("Made the project ")  # a locked server may make a spare one
    assert waiting(client, room, "ana") == items[3:]
    assert reading.sync(workspace, room).rejections == []
    assert toy.history(workspace.root)["labels"] == labels


def test_tasks_deleted_by_hand(read_workspace, client):
    """What was read stays read; what was not comes back."""
    workspace, room, items = read_workspace
    reading.sync(workspace, room)
    labels = toy.history(workspace.root)["labels"]
    for item_id in (items[0], items[4]):
        client.delete(f"api/tasks/{task_number(client, room, 'ana', item_id)}/")
    reading.sync(workspace, room)
    assert waiting(client, room, "ana") == items[3:]
    assert toy.history(workspace.root)["labels"] == labels


def test_a_doubtful_answer_is_told_at_each_sync_and_taken_once_mended(read_workspace, client):
    workspace, room, items = read_workspace
    strange = {"from_name": "f1", "to_name": "image", "type": "choices"}
    body = [{**strange, "value": {"choices": ["no such word"]}}]
    number = submit(client, room, "ana", items[3], result=body)
    came = reading.sync(workspace, room)
    assert (came.reads, len(came.rejections)) == (3, 1)
    history = toy.history(workspace.root)
    assert [r.place for r in reading.sync(workspace, room).rejections] == [
        f"task {task_number(client, room, 'ana', items[3])} of ana's project "
        f"{room.places()[0].project}"
    ]
    now = toy.history(workspace.root)
    assert all(now[table] == history[table] for table in ("reads", "labels", "assignments"))
    client.patch(f"api/annotations/{number}/", {"result": []})
    came = reading.sync(workspace, room)
    assert (came.reads, came.rejections) == (1, [])


# Edits by hand ------------------------------------------------------------------------------------


def test_a_labeling_page_edited_by_hand_is_told_and_restored(desk):
    desk.room.queue(assigned(2), {})
    path = f"api/projects/{desk.project}/"
    config = desk.client.get(path)["label_config"]
    desk.client.patch(path, {"label_config": config.replace('"mass"', '"lump"')})
    (place, reason), *_ = rejected(desk.room).items()
    assert place == f"ana's project {desk.project}"
    assert "edited by hand" in reason
    desk.room.remarks.clear()
    desk.room.queue(assigned(2), {})
    assert desk.room.remarks == [
        f"The labeling page of ana's project {desk.project} was not Readloop's any more: it is "
        "restored."
    ]
    assert desk.client.get(path)["label_config"] == config
    assert rejected(desk.room) == {}
    desk.check(*reversed(ITEMS[:2]))


def test_a_page_that_cannot_be_restored_keeps_nobody_else_waiting(desk, label_studio, client):
    room = room_of(client, label_studio.media, workspace=desk.name)
    room.queue([*laws.assigned(ONE, TWO), *laws.assigned(ONE, reader="ben")], {})
    ana = next(p for p in room.places() if p.reader == "ana").project
    config = client.get(f"api/projects/{ana}/")["label_config"]
    edited = config.replace('"mass"', '"lump"').replace('"f2"', '"extra"')
    client.patch(f"api/projects/{ana}/", {"label_config": edited})
    strange = {"from_name": "extra", "to_name": "image", "type": "choices"}
    body = [{**strange, "value": {"choices": ["lump"]}}]
    number = submit(client, room, "ana", ONE, result=body)
    assert len(rejected(room)) == 2  # the page, and the answer
    room.remarks.clear()
    room.queue([*laws.assigned(TWO, THREE), *laws.assigned(ONE, TWO, reader="ben")], {})
    (remark,) = [one for one in room.remarks if "cannot be restored" in one]
    assert f"ana's project {ana}" in remark
    assert "delete those answers" in remark
    assert "\n" not in remark
    assert waiting(client, room, "ana") == [TWO, THREE]
    assert waiting(client, room, "ben") == [ONE, TWO]
    assert len(rejected(room)) == 2  # the page, and the answer
    client.delete(f"api/annotations/{number}/")
    room.queue(laws.assigned(ONE, TWO, THREE), {})
    assert client.get(f"api/projects/{ana}/")["label_config"] == config
    assert rejected(room) == {}


@pytest.mark.parametrize("marker", ["description", "label_config"])
def test_a_marker_that_was_removed_by_hand_is_put_back(desk, marker):
    desk.room.queue(assigned(2), {})
    number = desk.project
    path = f"api/projects/{number}/"
    before = desk.client.get(path)
    bare = before["label_config"].partition("<!--")[0]
    desk.client.patch(path, {marker: {"description": "my cases", "label_config": bare}[marker]})
    desk.room.queue(assigned(3), {})
    assert desk.client.get(path)[marker] == before[marker]
    assert desk.project == number
    desk.check(*reversed(ITEMS[:3]))


def test_a_tab_that_was_edited_or_deleted_by_hand(desk):
    desk.room.queue(assigned(3), {})
    (view,) = desk.client.get("api/dm/views/", project=desk.project)
    spoilt = {
        "title": projects.VIEW_TITLE,
        "ordering": ["-tasks:id"],
        "filters": {"conjunction": "and", "items": []},
    }
    path = f"api/dm/views/{view['id']}/"
    desk.client.patch(path, {"project": desk.project, "data": spoilt})
    desk.room.queue(assigned(3), {})
    desk.check(*reversed(ITEMS[:3]))
    desk.client.delete(path)
    desk.room.queue(assigned(3), {})
    desk.check(*reversed(ITEMS[:3]))


def test_a_task_edited_by_hand_is_put_right(desk):
    desk.room.queue(assigned(2), {})
    first = desk.tasks()[0]
    path = f"api/tasks/{first['id']}/"
    desk.client.patch(path, {"data": {**first["data"], "priority": "0", "queue": "done"}})
    desk.room.queue(assigned(2), {})
    assert desk.tasks()[0]["data"] == first["data"]


def test_a_task_deleted_while_it_is_brought_up_to_date(desk):
    desk.room.queue(assigned(3), {})
    number = task_number(desk.client, desk.straight, "ana", ITEMS[0])

    def delete() -> None:
        desk.client.delete(f"api/tasks/{number}/")

    desk.proxy.script(Fault("call", method="PATCH", path=f"/api/tasks/{number}/", action=delete))
    desk.room.queue(laws.assigned(*ITEMS[:3]), {})
    assert desk.proxy.count("PATCH") > 0
    desk.straight.queue(laws.assigned(*ITEMS[:3]), {})
    desk.check(*ITEMS[:3])


def test_closing_many_takes_few_requests_and_spares_who_is_at_one(desk):
    desk.room.queue(assigned(30), {})
    numbers = {t["data"]["external_id"]: t["id"] for t in desk.tasks()}
    draft(desk.client, numbers[ITEMS[7]])
    answer(desk.client, desk.straight, "ana", ITEMS[8], YES)
    desk.proxy.script()
    desk.room.queue(assigned(3), {})
    assert len(desk.proxy.requests) < 15
    assert waiting(desk.client, desk.straight) == [*reversed(ITEMS[:3]), ITEMS[7]]
    assert outcomes(laws.pulled(desk.straight)[0]) == [(ITEMS[8], "read")]
    assert not [r for r in laws.pulled(desk.straight)[0] if r.outcome == "withdrawn"]
    desk.room.queue(assigned(30), {})
    assert waiting(desk.client, desk.straight) == [i for i in reversed(ITEMS[:30]) if i != ITEMS[8]]
