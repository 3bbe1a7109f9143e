"""A person's path: queue, read by keyboard in a browser, sync, look, run the round."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from app.cli import run
from connectors.label_studio import projects, server
from connectors.label_studio.client import Client
from connectors.label_studio.page import hint_result
from ssl_core.history.truth import label_matrix
from ssl_core.workspace import open_workspace
from tests import browser, toy
from tests import rounds_by_hand as hand

TASK = toy.TASKS["multi_label"]  # Spot [1], Bar [2], Rare [3]
TWO = {
    "room": "label_studio",
    "readers": ["ana", "ben"],
    "adjudicator": "chief",
    "overlap_share": 0.5,
    "resolution": "working",
}


@pytest.fixture
def signed_in(label_studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", label_studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(label_studio.media))
    return label_studio


def rows(root, query: str) -> list[tuple]:
    connection = sqlite3.connect(root / "ledger.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def links(printed: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+): [\d,]+ wait, (http\S+)$", printed, flags=re.M))


def order_of(root, reader: str) -> list[str]:
    query = f"SELECT item_id FROM assignments WHERE reader = '{reader}' ORDER BY priority"
    return [item_id for (item_id,) in rows(root, query)]


def submit(signed_in, root, reader: str, item_id: str, **values: float) -> None:
    """A reader answers by way of the API."""
    client = Client(signed_in.url, signed_in.token)
    project = projects.find_projects(client, open_workspace(root).ledger.identity())[reader].id
    tasks = client.get("api/tasks/", project=project, page_size=100)["tasks"]
    (number,) = [t["id"] for t in tasks if t["data"]["external_id"] == item_id]
    said = dict.fromkeys(TASK.findings, 0.0) | values
    body = {"result": hint_result(TASK, said), "lead_time": 10}
    client.post(f"api/tasks/{number}/annotations/", body)


def test_a_person_reads_five_cases_skips_one_and_the_round_trains(tmp_path, signed_in, capsys):
    root = toy.make(tmp_path / "W", TASK, reading={"room": "label_studio", "resolution": "working"})
    assert run(["queue", str(root)]) == 0
    link = links(capsys.readouterr().out)["reader"]
    asked = order_of(root, "reader")
    assert len(asked) == 36  # validation and vault, before the first round
    with browser.reading(signed_in, link) as reader:
        for keys in ("1", "12", "q2", "", "n"):
            reader.answer(*keys)
        reader.skip()
    assert run(["sync", str(root)]) == 0
    assert "New reads: 6." in capsys.readouterr().out
    reads = rows(root, "SELECT item_id, outcome, seconds, hinted FROM reads ORDER BY seq")
    assert [r[0] for r in reads] == asked[:6]  # in our order, each once
    assert [r[1] for r in reads] == ["read"] * 4 + ["unusable", "skipped"]
    assert all(0 < r[2] < 120 for r in reads)
    assert not any(r[3] for r in reads)
    said = rows(root, "SELECT item_id, finding, value FROM labels ORDER BY seq")
    by_item = {i: [v for item, _, v in said if item == i] for i in asked[:4]}
    assert list(by_item.values()) == [[1, 0, 0], [1, 1, 0], [None, 1, 0], [0, 0, 0]]
    assert len(said) == 12
    before = toy.history(root)
    assert run(["sync", str(root)]) == 0
    assert "New reads: 0." in capsys.readouterr().out
    after = toy.history(root)
    del before["bookmarks"], after["bookmarks"]
    assert after == before

    assert run(["round", str(root)]) == 0  # a cold start: no training label yet
    assert run(["queue", str(root)]) == 0
    link = links(capsys.readouterr().out)["reader"]
    batch = [i for (i,) in rows(root, "SELECT item_id FROM selections ORDER BY rank")]
    assert order_of(root, "reader")[: len(batch)] == batch
    with browser.reading(signed_in, link) as reader:
        for keys in ("1", "", "1", "", "12"):
            reader.answer(*keys)
    assert run(["sync", str(root)]) == 0
    assert run(["round", str(root)]) == 0
    status = capsys.readouterr().out
    assert "New reads: 5." in status
    trained = json.loads(rows(root, "SELECT detail FROM stages WHERE name = 'teacher'")[0][0])
    assert trained["items"] == 5


def test_two_readers_disagree_and_the_adjudicator_decides(tmp_path, signed_in, capsys):
    root = toy.make(tmp_path / "W", TASK, reading=TWO)
    assert run(["queue", str(root)]) == 0
    assert set(links(capsys.readouterr().out)) == {"ana", "ben"}
    ledger = open_workspace(root).ledger
    item_id = order_of(root, "ana")[0]
    submit(signed_in, root, "ana", item_id, Spot=1.0)
    submit(signed_in, root, "ben", item_id, Bar=1.0)
    assert run(["sync", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "Items on which readers disagree, sent to the adjudicator: 1." in printed
    assert run(["label-studio", "status", str(root)]) == 0
    assert run(["readers", str(root), "--json"]) == 0
    assert '"in_dispute": 1' in capsys.readouterr().out
    submit(signed_in, root, "chief", item_id, Bar=1.0)
    assert run(["sync", str(root)]) == 0
    assert run(["readers", str(root), "--json"]) == 0
    assert '"in_dispute": 0' in capsys.readouterr().out
    split = ledger.items()[[i.id for i in ledger.items()].index(item_id)].split
    if split != "vault":
        truth = label_matrix([item_id], ledger.labels(), TASK.findings)
        np.testing.assert_array_equal(truth, [[0, 1, 0]])


def test_hints_are_shown_for_a_half_and_recorded(tmp_path, signed_in, capsys):
    root = toy.make(tmp_path / "W", TASK, reading={"resolution": "working"})
    for _ in range(2):
        assert run(["round", str(root)]) == 0  # the simulated reader answers: a model is trained
    toml = root / "readloop.toml"
    changed = toml.read_text().replace('room = "auto"', 'room = "label_studio"')
    toml.write_text(changed.replace("hints = false", "hints = true"))
    assert run(["queue", str(root)]) == 0
    hinted = dict(rows(root, "SELECT item_id, hinted FROM assignments WHERE reader = 'reader'"))
    assert len(hinted) == 8
    assert 3 <= sum(hinted.values()) <= 5
    client = Client(signed_in.url, signed_in.token)
    (project,) = projects.find_projects(client, open_workspace(root).ledger.identity()).values()
    tasks = client.get("api/tasks/", project=project.id, page_size=100, fields="all")["tasks"]
    shown = {h for (h,) in rows(root, "SELECT DISTINCT item_id FROM hints")}
    assert shown == {item_id for item_id, yes in hinted.items() if yes}
    present = {
        item: {
            f
            for i, f in rows(root, "SELECT item_id, finding FROM hints WHERE value = 1")
            if i == item
        }
        for item in hinted
    }
    for task in tasks:
        (prediction,) = client.get(f"api/tasks/{task['id']}/")["predictions"]
        item_id = task["data"]["external_id"]
        ticked = {w for region in prediction["result"] for w in region["value"]["choices"]}
        assert ticked == present[item_id]
    link = links(capsys.readouterr().out)["reader"]
    with browser.reading(signed_in, link) as reader:
        for item_id in order_of(root, "reader")[:4]:  # what the reader's eyes meet
            assert reader.ticked() == present[item_id]
            reader.answer()


def test_without_a_server_every_command_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    root = toy.make(tmp_path / "W", TASK, reading=TWO)
    for command in (["queue"], ["sync"]):
        assert run([*command, str(root)]) == 2
        told = capsys.readouterr().err
        assert "No Label Studio runs for" in told
        assert "readloop label-studio up" in told
    assert run(["label-studio", "status", str(root)]) == 0
    assert "does not run" in capsys.readouterr().out
    assert run(["label-studio", "down", str(root)]) == 0
    assert "did not run" in capsys.readouterr().out
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    assert run(["sync", str(root)]) == 2
    assert "LABEL_STUDIO_API_KEY is not: set it" in capsys.readouterr().err
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "secret-of-mine")
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(tmp_path))
    assert run(["sync", str(root)]) == 2
    told = capsys.readouterr().err
    assert "http://127.0.0.1:9 does not answer" in told
    assert "secret-of-mine" not in told


def test_an_archive_is_not_shown_to_people(tmp_path, capsys):
    root = toy.make(tmp_path / "W", TASK)
    assert run(["queue", str(root)]) == 2
    assert 'set `room = "label_studio"` under [reading]' in capsys.readouterr().err


def test_the_secret_stands_nowhere_in_the_workspace(tmp_path, signed_in, capsys):
    root = toy.make(tmp_path / "W", TASK, reading=TWO)
    assert run(["queue", str(root)]) == 0
    assert run(["sync", str(root)]) == 0
    printed = capsys.readouterr()
    secret = signed_in.token.encode()
    assert secret.decode() not in printed.out + printed.err
    for path in root.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def watching(root, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "app.cli", "sync", str(root), "--watch", "--every", "1"]
    return subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stopped(process: subprocess.Popen) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_watching_takes_in_what_is_read_until_it_is_stopped(tmp_path, signed_in, capsys):
    root = toy.make(tmp_path / "W", TASK, reading=TWO)
    assert run(["queue", str(root)]) == 0
    item_id = order_of(root, "ana")[0]
    process = watching(root)
    try:
        submit(signed_in, root, "ana", item_id, Spot=1.0)
        assert process.stdout is not None
        assert process.stdout.readline() == "New reads: 1.\n"
    finally:
        code, _, err = stopped(process)
    assert rows(root, "SELECT item_id, reader FROM reads") == [(item_id, "ana")]
    assert code == 130
    assert "Traceback" not in err


def test_watching_waits_for_a_server_that_is_away(tmp_path, signed_in, monkeypatch):
    root = toy.make(tmp_path / "W", TASK, reading=TWO)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    process = watching(root)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        code, _, err = stopped(process)
    assert "does not answer" in line
    assert "Trying again in 2 s." in line
    assert code == 130
    assert "Traceback" not in err


def test_up_status_and_down(tmp_path, capsys, monkeypatch):
    from tests import label_studio

    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    root = toy.make(tmp_path / "W", TASK, reading=TWO)
    label_studio.prepare(root)
    try:
        port = str(label_studio.free_port())
        assert run(["label-studio", "up", str(root), "--port", port]) == 0
        told = capsys.readouterr().out
        assert f"http://127.0.0.1:{port}" in told
        assert "Sign in as" in told
        assert run(["queue", str(root)]) == 0
        assert set(links(capsys.readouterr().out)) == {"ana", "ben"}
        assert run(["label-studio", "status", str(root)]) == 0
        assert f"ana: http://127.0.0.1:{port}/projects/" in capsys.readouterr().out
        assert run(["label-studio", "down", str(root)]) == 0
        assert "Stopped" in capsys.readouterr().out
        assert server.running(root) is None
    finally:
        server.stop(root)


def served(signed_in, root, reader: str) -> list[str]:
    """The cases that are open in a reader's project, by the server, and nobody answered."""
    client = Client(signed_in.url, signed_in.token)
    project = projects.find_projects(client, open_workspace(root).ledger.identity())[reader].id
    tasks = client.get("api/tasks/", project=project, page_size=100, fields="all")["tasks"]
    undone = [t for t in tasks if not t["total_annotations"]]
    return [t["data"]["external_id"] for t in undone if t["data"]["queue"] == "open"]


def test_a_contradiction_is_read_again_by_another_reader_beside_a_control(
    tmp_path, signed_in, capsys
):
    """Through the server: the case is closed for ben as a reserve, and opened to be re-read."""
    people = {**TWO, "overlap_share": 0.0, "evaluation_overlap_share": 0.0, "adjudicator": ""}
    root = toy.make(tmp_path / "W", TASK, reading=people)
    assert run(["reread", str(root)]) == 2
    assert "has no model yet" in capsys.readouterr().err
    ws = open_workspace(root)
    train = hand.ids(ws, "train")[:6]
    hand.open_round(ws.ledger, 1, ws.config.to_json())
    chosen = [hand.asked(item_id, rank) for rank, item_id in enumerate(train)]
    hand.add(ws.ledger, 1, "select", "select", selections=chosen)
    ws.ledger.finish_round(1, "{}")
    assert run(["queue", str(root)]) == 0
    own = {a.item_id: a.reader for a in ws.ledger.reading.assignments() if a.primary}
    for item_id in train:
        submit(signed_in, root, own[item_id], item_id, Spot=1.0)
    assert run(["sync", str(root)]) == 0
    hand.trained(ws, 2, t1=0.7, s1=0.8)
    hand.says(ws, "s1", {item: [0.05 if k == 0 else 0.9, 0.1, 0.1] for k, item in enumerate(train)})
    capsys.readouterr()
    assert run(["reread", str(root), "--limit", "1"]) == 0
    assert "Asked again: 1 contradictions and as many controls" in capsys.readouterr().out
    held = ws.ledger.reading.rereads()
    doubted, control = sorted(held, key=lambda one: one.kind == "control")
    assert (doubted.item_id, doubted.kind, control.kind) == (train[0], "contradiction", "control")
    assert doubted.reader != own[train[0]]
    assert doubted.item_id not in served(signed_in, root, doubted.reader)
    assert run(["queue", str(root)]) == 0
    assert run(["queue", str(root)]) == 0  # twice: nothing is doubled
    for one in (doubted, control):
        assert served(signed_in, root, one.reader).count(one.item_id) == 1
    submit(signed_in, root, doubted.reader, doubted.item_id)
    submit(signed_in, root, control.reader, control.item_id, Spot=1.0)
    assert run(["sync", str(root)]) == 0
    capsys.readouterr()
    assert run(["readers", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    result = found["evidence"]["rereads"]
    assert [result[k]["changed"] for k in ("contradiction", "control")] == [1, 0]
    assert result["contradiction"]["seconds"] == 10
    assert found["in_dispute"] == 1
    assert np.isnan(label_matrix([train[0]], ws.ledger.labels(), TASK.findings)[0, 0])
    for one in (doubted, control):
        assert one.item_id not in served(signed_in, root, one.reader)
