"""Masks that people draw: queue, draw in Label Studio, sync, look, train, see the model's masks."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import run
from connectors.label_studio import projects
from connectors.label_studio.client import Client
from connectors.label_studio.masks import region_mask
from ssl_core.masks.files import fit_mask, load, unfit_mask
from ssl_core.masks.truth import mask_truth
from ssl_core.readers.anchoring_reads import hinted_or_blind
from ssl_core.workspace import open_workspace
from tests import browser

N, HEIGHT, WIDTH, SIZE = 36, 48, 72, 32
MASKED = 18
SETTINGS = {
    "query_size = 50": "query_size = 6",
    "epochs = 8": "epochs = 2",
    "epoch_steps = 15": "epoch_steps = 4",
    'control = "grown"': 'control = "off"',
    '    "auto",': '    "pca",',
}


@pytest.fixture
def signed_in(label_studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", label_studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(label_studio.media))
    return label_studio


@pytest.fixture
def root(tmp_path) -> Path:
    """A workspace whose first images have a lung, every other of them a nodule; two a patient."""
    data = tmp_path / "data"
    rng, rows = np.random.default_rng(int.from_bytes(tmp_path.name.encode()) % 2**32), []
    for name in ("", "lung", "nodule"):
        (data / name).mkdir()
    for i in range(N):
        lung, nodule = box(6 + i % 3, 30, 8, 40), box(30, 40, 40, 60)
        pixels = rng.integers(0, 60, (HEIGHT, WIDTH)).astype(np.uint8)
        pixels[lung] += 150
        pixels[nodule] += 90 * (i % 2)
        for folder, picture in (("", pixels), ("lung", lung), ("nodule", nodule)):
            Image.fromarray(picture).save(data / folder / f"{i:02d}.png")
        cells = [f"{name}/{i:02d}.png" for name in ("lung", "nodule")]
        cells = [cells[0] if i < MASKED else "", cells[1] if i < MASKED and i % 2 else ""]
        rows.append([f"{i:02d}.png", f"P{i // 2}", *cells])
    with (data / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "patient", "lung", "nodule"], *rows])
    where = ["--images", data, "--manifest", data / "m.csv", "--group-column", "patient"]
    masks = ["--mask-column", "lung,nodule", "--preset", "tiny", "--size", SIZE]
    shares = ["--validation", "0.3", "--vault", "0.3"]
    made = tmp_path / "w"
    assert run(list(map(str, ["init", made, *where, *masks, *shares]))) == 0
    return made


def box(top: int, bottom: int, left: int, right: int, shape=(HEIGHT, WIDTH)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def edit(root: Path, **said: str) -> None:
    """Change lines of a workspace's configuration; `said` are those under [reading]."""
    toml = (root / "readloop.toml").read_text()
    for before, after in SETTINGS.items():
        toml = toml.replace(before, after)
    for name, value in said.items():
        toml = re.sub(f"^{name} = (\\[[^]]*\\]|.*)$", f"{name} = {value}", toml, flags=re.M)
    (root / "readloop.toml").write_text(toml)


def rows(root: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(root / "ledger.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def asked_of(root: Path, reader: str, split: str) -> list[str]:
    """What a reader was asked about, less the vault's, in order."""
    items = {item.id for item in open_workspace(root).ledger.items(split)}
    query = f"SELECT item_id FROM assignments WHERE reader = '{reader}' ORDER BY priority"
    return [item_id for (item_id,) in rows(root, query) if item_id in items]


def brush(name: str, *masks: np.ndarray, **more) -> list[dict]:
    """A brush region for each mask, packed by Label Studio's own code."""
    from label_studio_sdk.converter.brush import mask2rle  # seconds to import

    return [
        {
            "from_name": "mask",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": mask.shape[1],
            "original_height": mask.shape[0],
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": mask2rle(mask.astype(np.uint8) * 255),
                "brushlabels": [name],
            },
            **more,
        }
        for mask in masks
    ]


def tick(block: str, word: str) -> dict:
    value = {"choices": [word]}
    return {"from_name": block, "to_name": "image", "type": "choices", "value": value}


class Server:
    """What readers of a workspace do by way of the API."""

    def __init__(self, signed_in, root: Path) -> None:
        self.client = Client(signed_in.url, signed_in.token)
        self.identity = open_workspace(root).ledger.identity()

    def project(self, reader: str) -> int:
        return projects.find_projects(self.client, self.identity)[reader].id

    def tasks(self, reader: str) -> dict[str, dict]:
        project = self.project(reader)
        found = self.client.get("api/tasks/", project=project, page_size=100, fields="all")
        return {task["data"]["external_id"]: task for task in found["tasks"]}

    def submit(self, reader: str, item_id: str, result: list, seconds: float = 10.0) -> int:
        number = self.tasks(reader)[item_id]["id"]
        body = {"result": result, "lead_time": seconds}
        return self.client.post(f"api/tasks/{number}/annotations/", body)["id"]


def synced(root: Path, capsys) -> str:
    capsys.readouterr()
    assert run(["sync", str(root)]) == 0
    return capsys.readouterr().out


def drawn_of(root: Path, item_id: str, reader: str) -> dict[str, np.ndarray | float]:
    """A reader's newest answers of an item: a mask, or a value."""
    ws = open_workspace(root)
    return {
        one.finding: load(ws.masks_folder, one.mask) if one.mask else one.value
        for one in ws.ledger.labels()
        if (one.item_id, one.reader) == (item_id, reader)
    }


def test_masks_of_two_readers_come_in_to_the_pixel(root, signed_in, capsys):
    edit(root, readers='["ana", "ben"]')
    assert run(["queue", str(root)]) == 0
    assert run(["queue", str(root)]) == 0  # again changes nothing
    server = Server(signed_in, root)
    item, other = asked_of(root, "ana", "validation")[:2]
    rng = np.random.default_rng(5)
    speckled = box(5, 20, 8, 30) & (rng.random((HEIGHT, WIDTH)) < 0.5)
    low, right = box(25, 30, 8, 30), box(10, 20, 30, 40)
    # two regions of one finding that overlap nothing, and "absent" of the other
    server.submit("ana", item, [*brush("lung", speckled, low), tick("f2", "absent")], 12.5)
    server.submit("ben", item, [*brush("lung", low), *brush("nodule", right)], 31.0)
    server.submit("ana", other, [tick("f2", "absent")])  # the lung was not looked at
    server.submit("ben", other, [tick("f1", "cannot tell"), tick("f2", "absent")])
    assert "New reads: 4." in synced(root, capsys)

    ana, ben = drawn_of(root, item, "ana"), drawn_of(root, item, "ben")
    np.testing.assert_array_equal(ana["lung"], speckled | low)
    assert ana["nodule"] == 0.0
    np.testing.assert_array_equal(ben["lung"], low)
    np.testing.assert_array_equal(ben["nodule"], right)
    assert drawn_of(root, other, "ana") == {"nodule": 0.0}
    assert np.isnan(drawn_of(root, other, "ben")["lung"])
    timed = dict(rows(root, f"SELECT reader, seconds FROM reads WHERE item_id = '{item}'"))
    assert timed == {"ana": 12.5, "ben": 31.0}

    assert run(["readers", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["mask_agreement"]
    dice = {one["finding"]: one["dice"]["value"] for one in told}
    both = 2 * low.sum() / ((speckled | low).sum() + low.sum())
    assert dice == {"lung": pytest.approx(both), "nodule": pytest.approx(1 / 2)}  # 0 and 1
    assert [one["dice"]["n"] for one in told] == [1, 2]
    assert run(["readers", str(root)]) == 0
    assert "Agreement of masks (Dice, interval by patient)" in capsys.readouterr().out
    assert "New reads: 0." in synced(root, capsys)


def test_what_cannot_be_taken_is_told_by_task_and_comes_in_once_it_is_mended(
    root, signed_in, capsys
):
    assert run(["queue", str(root)]) == 0
    server = Server(signed_in, root)
    items = asked_of(root, "reader", "validation")
    lung = box(5, 20, 8, 30)
    (damaged,) = brush("lung", lung)
    damaged["value"]["rle"] = damaged["value"]["rle"][:-40]
    cases = [
        ([*brush("lung", lung), tick("f1", "absent")], "'lung' is painted and marked 'absent'"),
        ([damaged], "the mask of 'lung' is unreadable: it is damaged"),
        (brush("lung", lung.T), "it is 48 × 72 pixels, and the image 72 × 48"),
        ([], "nothing is painted, and nothing marked 'absent'"),
    ]
    assert len(items) >= len(cases)
    numbers = [server.submit("reader", i, case) for i, (case, _) in zip(items, cases, strict=False)]
    told = synced(root, capsys)
    assert "New reads: 0." in told
    assert told.count("Not taken: task") == len(cases)
    for (_, phrase), number in zip(cases, numbers, strict=True):
        assert f"{phrase}" in told
        assert f"correct annotation {number} there, or delete it." in told
    assert not list((root / "masks").glob("*.tmp"))
    for number in numbers:
        mended = {"result": brush("lung", lung)}
        server.client.patch(f"api/annotations/{number}/", mended)
    assert f"New reads: {len(cases)}." in synced(root, capsys)
    for item_id in items[: len(cases)]:
        np.testing.assert_array_equal(drawn_of(root, item_id, "reader")["lung"], lung)


def test_pictures_at_the_working_size_are_drawn_on_and_kept_in_the_image_s_own_frame(
    root, signed_in, capsys
):
    edit(root, resolution='"working"')
    assert run(["queue", str(root)]) == 0
    item = asked_of(root, "reader", "validation")[0]
    with Image.open(signed_in.media / "images" / f"{item}.png") as picture:
        assert picture.size == (SIZE, SIZE)
    seen = box(9, 20, 5, 25, (SIZE, SIZE))
    Server(signed_in, root).submit("reader", item, brush("lung", seen))
    edit(root, resolution='"full"')  # meanwhile: what was drawn on is known by its size
    assert "New reads: 1." in synced(root, capsys)
    np.testing.assert_array_equal(
        drawn_of(root, item, "reader")["lung"], unfit_mask(seen, (HEIGHT, WIDTH), "pad")
    )
    ws = open_workspace(root)
    found = mask_truth([item], ws.ledger.labels(), ("lung", "nodule"), ws.masks).at([0])[0]
    assert np.mean((found[0] == 1) != seen) < 0.01
    assert np.isnan(found[1]).all()


def test_a_hinted_reader_sees_the_model_s_masks_and_a_blind_one_draws(root, signed_in, capsys):
    edit(root, hints="true")
    assert run(["round", str(root)]) == 0
    assert run(["queue", str(root)]) == 0
    link = re.search(r"^reader: [\d,]+ wait, (http\S+)$", capsys.readouterr().out, re.M)[1]
    server = Server(signed_in, root)
    assignments = rows(root, "SELECT item_id, hinted FROM assignments ORDER BY priority")
    hinted = {item_id for item_id, yes in assignments if yes}
    shown = open_workspace(root).ledger.reading.hints()
    assert set(shown) == hinted
    assert 2 <= len(hinted) <= 4
    assert len(assignments) > len(hinted)
    folder = root / "masks"
    expected = {
        item_id: {
            hint.finding: unfit_mask(load(folder, hint.mask), (HEIGHT, WIDTH), "pad")
            if hint.mask
            else hint.value
            for hint in shown[item_id]
        }
        for item_id in hinted
    }
    assert any(isinstance(one, np.ndarray) for each in expected.values() for one in each.values())
    for item_id, task in server.tasks("reader").items():
        (prediction,) = server.client.get(f"api/tasks/{task['id']}/")["predictions"]
        told = {}
        for region in prediction["result"]:
            if region["type"] == "choices":
                told[{"f1": "lung", "f2": "nodule"}[region["from_name"]]] = 0.0
                assert region["value"]["choices"] == ["absent"]
            else:
                told[region["value"]["brushlabels"][0]] = region_mask(region) == 1
        np.testing.assert_equal(told, expected.get(item_id, {}))

    kinds = [bool(yes) for _, yes in assignments]
    order = [i for i, _ in assignments][: 1 + max(kinds.index(True), kinds.index(False))]
    with browser.reading(signed_in, link) as reader:
        for number, item_id in enumerate(order):
            if item_id in hinted:  # as it is: what the model drew is what is submitted
                reader.answer()
                continue
            if number == next(k for k, i in enumerate(order) if i not in hinted):
                reader.page.keyboard.press("Control+Enter")  # nothing at all is no answer
                reader.page.wait_for_timeout(1500)
                assert not server.tasks("reader")[item_id]["total_annotations"]
                reader.page.keyboard.press("Escape")
            draw(reader.page, "1")
            reader.answer("s")
    assert f"New reads: {len(order)}." in synced(root, capsys)
    vault = {item.id for item in open_workspace(root).ledger.items("vault")}
    for item_id in order:
        assert item_id not in vault
        told = drawn_of(root, item_id, "reader")
        if item_id in hinted:
            np.testing.assert_equal(told, expected[item_id])
        else:
            assert told["nodule"] == 0.0
            assert told["lung"].shape == (HEIGHT, WIDTH)
            assert told["lung"][HEIGHT // 2, WIDTH // 2]
            assert 0.001 < told["lung"].mean() < 0.2
            assert fit_mask(told["lung"], SIZE, "pad").any()
    seconds = rows(root, "SELECT seconds, hinted FROM reads")
    assert all(0 < one < 300 for one, _ in seconds)
    assert sum(yes for _, yes in seconds) == len(hinted & set(order))

    found = hinted_or_blind(open_workspace(root))
    assert [one.agrees for one in found if one.hinted] == [1.0] * len(hinted & set(order))
    assert sum(not one.hinted for one in found) == len(set(order) - hinted)
    assert run(["readers", str(root)]) == 0
    assert run(["reread", str(root)]) == 0


def draw(page, key: str) -> None:
    """A stroke through the middle of the picture, with the brush of a finding."""
    page.keyboard.press(key)
    stage = page.locator(".konvajs-content").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(middle[0] - 60, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1], steps=6)
    page.mouse.up()
    page.wait_for_timeout(1000)  # the stroke becomes a region in the background
    page.keyboard.press("Escape")
