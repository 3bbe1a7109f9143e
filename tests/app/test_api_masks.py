"""The prediction API of a model that draws masks."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.api import create_app
from app.export import predict_files
from ssl_core.claims.promotion import find_in_use
from ssl_core.drawings import drawings
from ssl_core.masks.files import unfit_mask
from ssl_core.workspace import open_workspace


@pytest.fixture(scope="module")
def ws(drawn):
    return open_workspace(drawn)


@pytest.fixture(scope="module")
def client(ws):
    with TestClient(create_app(ws), raise_server_exceptions=False) as found:
        yield found


def picture(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_its_masks_are_those_that_the_workspace_shows(ws, client):
    number, model = find_in_use(ws)
    ids = [item.id for item in ws.ledger.items("train")][:8]
    expected = drawings(ws, number, model, ids)
    some = False
    for item_id, masks in zip(ids, expected, strict=True):
        sent = ws.images.pixels([item_id])[0, 0]
        answer = client.post("/predict", content=picture(sent))
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["task"], told["model"]["id"]) == ("segmentation", model.id)
        for one, finding, mask in zip(
            told["findings"], ws.ledger.task.findings, masks, strict=True
        ):
            assert (one["finding"], one["threshold"]) == (finding, None)
            assert one["present"] is bool(mask.any()) is (one["mask"] is not None)
            if one["mask"]:
                file = Image.open(BytesIO(base64.b64decode(one["mask"])))
                assert (file.format, file.mode) == ("PNG", "1")
                np.testing.assert_array_equal(np.asarray(file), mask)
                some = True
    assert some


def test_a_mask_has_the_size_of_the_picture_and_the_command_agrees(ws, client, tmp_path):
    side = ws.images.size
    item = next(i for i in ws.ledger.items("train"))
    large = Image.fromarray(ws.images.pixels([item.id])[0, 0]).resize((5 * side, 3 * side))
    large.save(tmp_path / "a.png")
    told = client.post("/predict", content=(tmp_path / "a.png").read_bytes()).json()
    assert (told["image"]["height"], told["image"]["width"]) == (3 * side, 5 * side)
    for one in told["findings"]:
        if one["mask"]:
            file = Image.open(BytesIO(base64.b64decode(one["mask"])))
            assert file.size == (5 * side, 3 * side)
    (row,) = predict_files(ws, [tmp_path / "a.png"])["images"]
    said = {one["finding"]: one for one in told["findings"]}
    for finding, p in row["probabilities"].items():
        assert said[finding]["probability"] == pytest.approx(p, abs=1e-4)
    # What the working size cannot show is smoothed, and lies where it was.
    mask = np.zeros((side, side), bool)
    mask[2:6, 2:6] = True
    assert unfit_mask(mask, (3 * side, 5 * side), ws.images.fit).any()


def test_it_has_a_card_and_no_activation_map(ws, client):
    model = find_in_use(ws)[1]
    card = client.get(f"/models/{model.id}/card").json()
    assert card["task"] == "segmentation"
    assert any(row["name"] == "dice" for row in card["vault"])
    sent = picture(ws.images.pixels([ws.ledger.items()[0].id])[0, 0])
    refused = client.post("/predict?map=Spot", content=sent)
    assert refused.status_code == 422
    assert "draw no masks" in refused.json()["detail"]
