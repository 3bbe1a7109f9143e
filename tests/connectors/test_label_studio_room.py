"""Label Studio as a reading room, against the real server."""

from __future__ import annotations

import json
import math
import secrets
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from connectors.label_studio import projects, tasks
from connectors.label_studio import room as room_module
from connectors.label_studio.client import Client
from connectors.label_studio.page import hint_result
from connectors.label_studio.pictures import LocalFiles
from connectors.label_studio.room import LabelStudioRoom
from ssl_core.records import Hint
from tests.connectors import laws

ONE, TWO, THREE = laws.ITEMS[:3]
YES = {"effusion": 1.0, "mass": 0.0}


@pytest.fixture(scope="module")
def client(label_studio):
    return Client(label_studio.url, label_studio.token)


@pytest.fixture
def room(client, label_studio):
    return room_of(client, label_studio.media)


def room_of(client, media: Path, *, workspace: str = "", task=laws.TASK, **more) -> LabelStudioRoom:
    return LabelStudioRoom(
        client,
        task,
        workspace or secrets.token_hex(6),
        title="laws",
        readers=more.pop("readers", laws.READERS),
        pictures=LocalFiles(media, lambda item_id: np.zeros((8, 8, 3), np.uint8)),
        **more,
    )


def project_of(client: Client, room: LabelStudioRoom, reader: str = "ana") -> int:
    return projects.find_projects(client, room._workspace)[reader].id


def tasks_of(client: Client, project: int) -> list[dict]:
    """All tasks of a project by number."""
    found = client.get("api/tasks/", project=project, page_size=1000, fields="all")["tasks"]
    return sorted(found, key=lambda task: task["id"])


def waiting(client: Client, room: LabelStudioRoom, reader: str = "ana") -> list[str]:
    """What the reader's link serves: the tab's tasks in its order, less those that are done."""
    place = next((p for p in room.places() if p.reader == reader), None)
    if place is None:
        return []
    view = place.link.partition("tab=")[2].partition("&")[0]
    found = client.get("api/tasks/", view=view, page_size=1000, fields="all")["tasks"]
    undone = [t for t in found if not t["total_annotations"] and not t["cancelled_annotations"]]
    return [t["data"]["external_id"] for t in undone]


def task_number(client: Client, room: LabelStudioRoom, reader: str, item_id: str) -> int:
    found = tasks_of(client, project_of(client, room, reader))
    numbers = [t["id"] for t in found if t["data"].get("external_id") == item_id]
    assert len(numbers) == 1, [(t["id"], t["data"]) for t in found]
    return numbers[0]


def submit(client: Client, room: LabelStudioRoom, reader: str, item_id: str, **body) -> int:
    number = task_number(client, room, reader, item_id)
    return client.post(f"api/tasks/{number}/annotations/", {"lead_time": 4.5, **body})["id"]


def answer(client: Client, room: LabelStudioRoom, reader: str, item_id: str, answers) -> int:
    return submit(client, room, reader, item_id, result=hint_result(laws.TASK, answers))


def draft(client: Client, number: int) -> None:
    """What the page keeps while a reader is at a case."""
    body = {"result": hint_result(laws.TASK, YES), "lead_time": 1.0}
    client.post(f"api/tasks/{number}/drafts", body)


def outcomes(reads) -> list[tuple[str, str]]:
    return [(read.item_id, read.outcome) for read in reads]


def everything(room, bookmark: str = ""):
    return [read for page in room.pull(bookmark) for read in page.reads]


def rejected(room, bookmark: str = "") -> dict[str, str]:
    _, found, _ = laws.pulled(room, bookmark)
    assert all("\n" not in one.reason for one in found)
    return {one.place: one.reason for one in found}


@pytest.mark.parametrize("law", laws.ROOM_LAWS, ids=lambda law: law.__name__)
def test_label_studio_obeys_the_laws(client, label_studio, law):
    law(
        room_of(client, label_studio.media),
        lambda *told: answer(client, *told),
        lambda *told: waiting(client, *told),
    )


# What readers do ----------------------------------------------------------------------------------


def test_a_read_has_a_time_and_a_length(client, room):
    room.queue(laws.assigned(ONE), {})
    answer(client, room, "ana", ONE, YES)
    (read,) = everything(room)
    assert (read.source, read.seconds) == ("label_studio", 4.5)
    assert read.read_at.startswith("20")
    assert read.read_at in read.key


def test_a_case_that_somebody_is_at_is_neither_moved_nor_closed(client, room):
    room.queue(laws.assigned(ONE, TWO, THREE), {})
    for item_id in (ONE, TWO):
        draft(client, task_number(client, room, "ana", item_id))
    before = tasks_of(client, project_of(client, room))
    room.queue(laws.assigned(THREE, TWO, first=5), {})
    after = tasks_of(client, project_of(client, room))
    assert [t["data"] for t in after[:2]] == [t["data"] for t in before[:2]]
    assert after[2]["data"] != before[2]["data"]
    assert waiting(client, room) == [ONE, TWO, THREE]
    answer(client, room, "ana", ONE, YES)
    assert (ONE, "read") in outcomes(everything(room))


def test_a_skipped_case(client, room):
    room.queue(laws.assigned(ONE, TWO), {})
    number = task_number(client, room, "ana", ONE)
    skipped = submit(client, room, "ana", ONE, result=[], was_cancelled=True)
    assert outcomes(laws.pulled(room)[0]) == [(ONE, "skipped")]
    assert waiting(client, room) == [TWO]
    client.patch(f"api/annotations/{skipped}/", {"was_cancelled": False})
    assert (ONE, "read") in outcomes(everything(room))
    client.delete(f"api/annotations/{skipped}/")
    assert (ONE, "withdrawn") in outcomes(everything(room))
    assert task_number(client, room, "ana", ONE) == number


def test_a_case_that_was_skipped_and_answered_later_is_answered(client, room):
    room.queue(laws.assigned(ONE), {})
    submit(client, room, "ana", ONE, result=[], was_cancelled=True)
    answer(client, room, "ana", ONE, YES)
    assert laws.said(everything(room)) == [(ONE, "ana", "read", YES)]


def test_an_answer_that_is_changed_is_another_event_and_one_deleted_is_withdrawn(client, room):
    room.queue(laws.assigned(ONE, TWO), {})
    number = answer(client, room, "ana", ONE, YES)
    (first,) = laws.pulled(room)[0]
    changed = {"effusion": 0.0, "mass": math.nan}
    client.patch(f"api/annotations/{number}/", {"result": hint_result(laws.TASK, changed)})
    (second,) = laws.pulled(room)[0]
    assert second.key != first.key
    assert dict(second.answers)["effusion"] == 0.0
    client.delete(f"api/annotations/{number}/")
    gone = [read for read in everything(room) if read.item_id == ONE]
    assert outcomes(gone) == [(ONE, "withdrawn")]
    assert gone[0].key not in (first.key, second.key)


def test_the_bookmark_looks_a_minute_back(client, room, monkeypatch):
    room.queue(laws.assigned(ONE, TWO), {})
    answer(client, room, "ana", ONE, YES)
    before, _, bookmark = laws.pulled(room)
    since = json.loads(bookmark)["ana"]["since"]
    assert before[0].read_at > since
    again, _, same = laws.pulled(room, bookmark)  # what happened in the minute is told again
    assert [read.key for read in again] == [read.key for read in before]
    assert json.loads(same)["ana"]["since"] >= since

    monkeypatch.setattr(room_module, "MARGIN", timedelta(seconds=-3600))  # long after it
    _, _, late = laws.pulled(room)
    assert everything(room, late) == []
    assert laws.pulled(room, late)[2] == late  # nothing new, no new row


def test_a_reader_who_has_left_is_still_heard_and_asked_nothing(client, label_studio):
    name = secrets.token_hex(6)
    room = room_of(client, label_studio.media, workspace=name)
    room.queue([*laws.assigned(ONE, TWO), *laws.assigned(ONE, reader="ben")], {})
    answer(client, room, "ana", ONE, YES)
    left = room_of(client, label_studio.media, workspace=name, readers=("ben",))
    left.queue(laws.assigned(ONE, reader="ben"), {})
    assert laws.said(laws.pulled(left)[0]) == [(ONE, "ana", "read", YES)]
    assert waiting(client, room, "ana") == []
    assert [place.reader for place in left.places()] == ["ben"]


def test_readers_with_awkward_names_each_have_a_project(client, label_studio):
    readers = ("a-b--c", "Ana María", "x@y.z+1", "a")
    room = room_of(client, label_studio.media, readers=readers, adjudicator="chief")
    everyone = (*readers, "chief")
    room.queue([one for r in everyone for one in laws.assigned(ONE, reader=r)], {})
    assert [place.reader for place in room.places()] == list(everyone)
    for place in room.places():  # found by either of the two markers
        client.patch(f"api/projects/{place.project}/", {"description": "mine"})
    assert [p.project for p in room.places()] == [project_of(client, room, r) for r in everyone]


def test_hints_are_ticked_for_hinted_items_alone(client, room):
    hints = {
        item: [Hint(item, "effusion", 1.0, 0.9, "m"), Hint(item, "mass", 0.0, 0.2, "m")]
        for item in (ONE, TWO)
    }
    room.queue([*laws.assigned(ONE, hinted=True), *laws.assigned(TWO, THREE, first=1)], hints)
    shown = {
        task["data"]["external_id"]: task["predictions"]
        for task in tasks_of(client, project_of(client, room))
    }
    assert [p["result"] for p in shown[ONE]] == [hint_result(laws.TASK, YES)]
    assert [p["result"] for item in (TWO, THREE) for p in shown[item]] == [[], []]
    told = json.dumps([shown[TWO], shown[THREE]])
    assert "effusion" not in told
    scores = [shown[item][0]["score"] for item in (ONE, TWO, THREE)]
    assert scores == sorted(scores, reverse=True)


def test_tasks_hold_nothing_of_a_patient(client, room):
    room.queue(laws.assigned(ONE), {})
    (task,) = tasks_of(client, project_of(client, room))
    assert set(task["data"]) == {"image", "external_id", "priority", "queue", "ticket"}


def test_many_tasks_come_in_pages_and_none_twice(client, room, monkeypatch):
    monkeypatch.setattr(tasks, "PAGE", 2)
    room.queue(laws.assigned(*laws.ITEMS), {})
    for item_id in laws.ITEMS:
        answer(client, room, "ana", item_id, YES)
    pages = room.pull("")
    first = next(pages)
    assert len(first.reads) == 2  # the others were not fetched yet
    assert not first.bookmark
    rest = [read for page in pages for read in page.reads]
    assert sorted(r.item_id for r in (*first.reads, *rest)) == list(laws.ITEMS)


# What the server would take and we do not ---------------------------------------------------------


def region(block="f1", word="effusion", **more) -> dict:
    value = {"choices": [word]}
    return {"from_name": block, "to_name": "image", "type": "choices", "value": value, **more}


HOSTILE = {
    "unknown choice": ([region(word="atelectasis")], "'atelectasis'"),
    "another finding's choice": ([region(word="mass")], "'mass'"),
    "unknown block": ([region(block="f9")], "'f9'"),
    "another object": ([region(to_name="text")], "of the image"),
    "another type": ([region(type="labels")], "of the image"),
    "both": ([region(), region(word="cannot tell")], "exclude each other"),
    "huge": ([region(word="x" * 200_000)], "xxx…"),
    "a reason alone": ([region(block="reason", word="other")], "not marked unusable"),
}


def test_what_the_page_cannot_have_made_is_told_by_task_until_it_is_mended(
    client, room, label_studio
):
    items = [f"{number:032x}" for number in range(1, len(HOSTILE) + 3)]
    room.queue(laws.assigned(*items), {})
    numbers = {
        t["data"]["external_id"]: t["id"] for t in tasks_of(client, project_of(client, room))
    }
    made = {}
    for (name, (result, _)), item_id in zip(HOSTILE.items(), items[1:-1], strict=True):
        body = {"result": result, "lead_time": 1.0}
        path = f"api/tasks/{numbers[item_id]}/annotations/"
        made[name] = client.post(path, body)["id"], item_id
    for good in (items[0], items[-1]):
        answer(client, room, "ana", good, YES)

    reads, told, bookmark = laws.pulled(room)
    assert sorted(read.item_id for read in reads) == [items[0], items[-1]]
    assert len(told) == len(HOSTILE)
    project = project_of(client, room)
    reasons = {one.place: one.reason for one in told}
    for name, (number, item_id) in made.items():
        reason = reasons[f"task {numbers[item_id]} of ana's project {project}"]
        assert HOSTILE[name][1] in reason, name
        assert f"correct annotation {number} there, or delete it" in reason
        assert len(reason) < 400

    long_after = bookmark.replace('"since": "20', '"since": "21')
    reads, again, later = laws.pulled(room, long_after)
    assert (reads, again) == ([], sorted(told, key=lambda one: one.place))
    for number, _ in made.values():
        client.patch(f"api/annotations/{number}/", {"result": [region()]})
    long_after = later.replace('"since": "20', '"since": "21')
    reads, told, bookmark = laws.pulled(room, long_after)
    assert (len(reads), told) == (len(HOSTILE), [])
    assert json.loads(bookmark)["ana"]["doubtful"] == []


@pytest.mark.parametrize(("given", "kept"), [(None, None), (-3.0, None), (0, 0.0), (9e9, 9e9)])
def test_a_length_that_cannot_be_is_left_out(client, room, given, kept):
    room.queue(laws.assigned(ONE), {})
    submit(client, room, "ana", ONE, result=[], lead_time=given)
    (read,) = laws.pulled(room)[0]
    assert read.seconds == kept
    assert dict(read.answers) == {"effusion": 0.0, "mass": 0.0}


def test_two_answers_in_one_task(client, room):
    room.queue(laws.assigned(ONE, TWO), {})
    numbers = [answer(client, room, "ana", ONE, YES) for _ in range(2)]
    reads, told, bookmark = laws.pulled(room)
    assert reads == []
    assert f"2 annotations ({numbers[0]}, {numbers[1]}): delete all but one" in told[0].reason
    client.delete(f"api/annotations/{numbers[0]}/")
    assert laws.said(laws.pulled(room, bookmark)[0]) == [(ONE, "ana", "read", YES)]


def test_an_answer_by_another_readers_account(client, room, label_studio):
    room.queue([*laws.assigned(ONE, TWO), *laws.assigned(ONE, reader="ben")], {})
    mail = f"ben@{secrets.token_hex(4)}.org"
    body = {"email": mail, "username": mail, "password": "secret-pass-2"}
    ben = client.post("api/users/", body)["id"]
    try:
        number = answer(client, room, "ana", ONE, YES)
        answer(client, room, "ana", TWO, YES)
        answer(client, room, "ben", ONE, YES)
        for task in tasks_of(client, project_of(client, room, "ben")):
            for one in task["annotations"]:
                client.patch(f"api/annotations/{one['id']}/", {"completed_by": ben})
        client.patch(f"api/annotations/{number}/", {"completed_by": ben})
        reads, told, _ = laws.pulled(room)
        assert sorted((r.item_id, r.reader) for r in reads) == [(ONE, "ben"), (TWO, "ana")]
        assert "ben answered it with an account of their own" in told[0].reason
        assert f"task {task_number(client, room, 'ana', ONE)} of ana's" in told[0].place
    finally:
        client.delete(f"api/users/{ben}/")


def test_a_reader_reads_again_in_a_project_of_its_own(client, label_studio):
    """Blind: a bare task of the same item; an account of the reader's own may answer both."""
    room = room_of(client, label_studio.media, readers=("ana",))
    room.queue(laws.assigned(ONE, TWO), {})
    answer(client, room, "ana", ONE, YES)
    room.queue([*laws.assigned(TWO), *laws.assigned(ONE, reader="ana (again)")], {})
    assert [place.reader for place in room.places()] == ["ana", "ana (again)"]
    assert waiting(client, room, "ana") == [TWO]
    assert waiting(client, room, "ana (again)") == [ONE]
    (task,) = tasks_of(client, project_of(client, room, "ana (again)"))
    assert task["annotations"] == []
    assert [one["result"] for one in task["predictions"]] == [[]]
    mail = f"ana@{secrets.token_hex(4)}.org"
    body = {"email": mail, "username": mail, "password": "secret-pass-2"}
    ana = client.post("api/users/", body)["id"]
    try:
        number = answer(client, room, "ana (again)", ONE, {"effusion": 0.0, "mass": 0.0})
        client.patch(f"api/annotations/{number}/", {"completed_by": ana})
        reads, told, _ = laws.pulled(room)
        assert not told
        assert laws.said(reads) == [
            (ONE, "ana", "read", YES),
            (ONE, "ana (again)", "read", {"effusion": 0.0, "mass": 0.0}),
        ]
        assert len({read.place for read in reads}) == 2
    finally:
        client.delete(f"api/users/{ana}/")


def post_task(client, project: int, **data) -> int:
    body = {"project": project, "data": {"image": "/static/x.png", **data}}
    return client.post("api/tasks/", body)["id"]


def test_tasks_that_others_put_there(client, room):
    room.queue([*laws.assigned(ONE, TWO), *laws.assigned(THREE, reader="ben")], {})
    mine, bens = project_of(client, room), project_of(client, room, "ben")
    others = next(t["data"] for t in tasks_of(client, bens))
    strange = [
        post_task(client, mine),
        post_task(client, mine, external_id="no such item"),
        post_task(client, mine, external_id=7),
        post_task(client, mine, **{k: v for k, v in others.items() if k != "image"}),
    ]
    assert rejected(room) == {}  # nobody answered them
    result = hint_result(laws.TASK, YES)
    for number in strange:
        client.post(f"api/tasks/{number}/annotations/", {"result": result})
    answer(client, room, "ana", ONE, YES)
    room.queue(laws.assigned(TWO), {})
    _, _, bookmark = laws.pulled(room)
    told = rejected(room, bookmark.replace('"since": "20', '"since": "21'))
    assert list(told) == [f"task {number} of ana's project {mine}" for number in strange]
    assert all("not put there by Readloop" in reason for reason in told.values())
    assert outcomes(laws.pulled(room)[0]) == [(ONE, "read")]
    for number in strange:
        client.delete(f"api/tasks/{number}/")
    reads, none, mended = laws.pulled(room, bookmark.replace('"since": "20', '"since": "21'))
    assert (reads, none) == ([], [])
    assert json.loads(mended)["ana"]["doubtful"] == []


def copy_of(client, number: int) -> int:
    task = client.get(f"api/tasks/{number}/")
    return post_task(client, task["project"], **task["data"])


def test_a_case_that_is_there_twice(client, room):
    room.queue(laws.assigned(ONE, TWO), {})
    first = task_number(client, room, "ana", ONE)
    copy_of(client, first)
    room.queue(laws.assigned(ONE, TWO), {})  # nobody was at it: one is closed
    assert waiting(client, room) == [ONE, TWO]
    double = copy_of(client, first)
    draft(client, first)
    answered = client.post(f"api/tasks/{double}/annotations/", {"result": []})["id"]
    room.queue(laws.assigned(TWO), {})
    assert laws.said(laws.pulled(room)[0]) == [(ONE, "ana", "read", dict.fromkeys(YES, 0.0))]

    # Which of two answers holds is not the room's to say: the ledger knows what came before.
    client.post(f"api/tasks/{first}/annotations/", {"result": hint_result(laws.TASK, YES)})
    both = [read for read in laws.pulled(room)[0] if read.item_id == ONE]
    assert sorted(dict(read.answers)["effusion"] for read in both) == [0.0, 1.0]
    assert {f"task {n} of ana's" in "".join(r.place for r in both) for n in (first, double)} == {
        True
    }
    client.delete(f"api/annotations/{answered}/")
    gone = [
        r for r in everything(room) if r.outcome == "withdrawn" and f"task {double} " in r.place
    ]
    assert len(gone) == 1
    assert laws.said(laws.pulled(room)[0]) == [(ONE, "ana", "read", YES)]


def test_a_bookmark_of_another_project_is_none(client, room):
    room.queue(laws.assigned(ONE), {})
    answer(client, room, "ana", ONE, YES)
    _, _, bookmark = laws.pulled(room)
    late = bookmark.replace('"since": "20', '"since": "21')
    assert laws.pulled(room, late)[0] == []
    other = late.replace(" made 20", " made 19")
    assert other != late
    assert laws.said(laws.pulled(room, other)[0]) == [(ONE, "ana", "read", YES)]


def test_settings_edited_by_hand_are_restored(client, room):
    room.queue(laws.assigned(ONE), {})
    number = project_of(client, room)
    edits = {
        "show_collab_predictions": False,
        "model_version": "",
        "enable_empty_annotation": False,
        "skip_queue": "REQUEUE_FOR_ME",
        "show_skip_button": False,
        "maximum_annotations": 3,
    }
    client.patch(f"api/projects/{number}/", edits)
    room.remarks.clear()
    room.queue(laws.assigned(ONE), {})
    held = client.get(f"api/projects/{number}/")
    assert {field: held[field] for field in edits} == {f: projects.SETTINGS[f] for f in edits}
    assert len(room.remarks) == len(edits)
    room.queue(laws.assigned(ONE), {})
    assert len(room.remarks) == len(edits)


def test_a_page_edited_by_hand_leaves_unknown_what_it_did_not_ask(client, label_studio):
    name = secrets.token_hex(6)
    room = room_of(client, label_studio.media, workspace=name)
    room.queue(laws.assigned(ONE, TWO), {})
    number = project_of(client, room)
    page = client.get(f"api/projects/{number}/")["label_config"]
    block = page[page.index('<Choices name="f2"') :].partition("</Choices>")[0] + "</Choices>"
    client.patch(f"api/projects/{number}/", {"label_config": page.replace(block, "")})
    answer(client, room, "ana", ONE, {"effusion": 1.0})

    queueing = room_of(client, label_studio.media, workspace=name)
    queueing.queue(laws.assigned(TWO), {})  # would make of what was not asked an "absent"
    assert "`readloop sync`" in queueing.remarks[0]
    reads, told, bookmark = laws.pulled(queueing)
    assert "edited by hand" in told[0].reason
    assert dict(reads[0].answers)["effusion"] == 1.0
    assert math.isnan(dict(reads[0].answers)["mass"])
    queueing.queue(laws.assigned(TWO), {})  # what a sync does after it has taken in
    assert client.get(f"api/projects/{number}/")["label_config"] == page
    answer(client, room, "ana", TWO, YES)
    reads = [read for read in laws.pulled(room, bookmark)[0] if read.item_id == TWO]
    assert laws.said(reads) == [(TWO, "ana", "read", YES)]
