"""The prediction API: what it says of an image, and what it says of everything else."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app import api, api_upload
from app.api import create_app
from app.api_model import ModelKeeper
from app.cli import run
from app.export import predict_files
from connectors.folder import FolderSource
from ssl_core.claims.promotion import find_in_use, in_use
from ssl_core.pictures.activation import class_activation, over_image
from ssl_core.records import Model
from ssl_core.rounds import run_round
from ssl_core.student import operating_point
from ssl_core.training.predict import Device, predict
from ssl_core.workspace import open_workspace
from tests import toy
from tests.app.test_cli import archive, data  # noqa: F401 (fixtures)
from tests.connectors.test_dicom import BAD as BAD_DICOM
from tests.connectors.test_dicom import SECRET, dicom, written

SMALL = 64 * 1024


def png(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


@pytest.fixture(scope="module", params=["binary", "multi_label", "multi_class"])
def trained(request, tmp_path_factory):
    """A workspace after two rounds, of which the second has trained."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "w", toy.TASKS[request.param])
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    run_round(workspace, room)
    return workspace


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A workspace with one trained student, for tests in which the task does not matter."""
    workspace, room = toy.opened(toy.make(tmp_path_factory.mktemp("toy") / "w"))
    run_round(workspace, room)
    run_round(workspace, room)
    return workspace


@pytest.fixture(scope="module")
def client(one) -> Iterator[TestClient]:
    with TestClient(create_app(one, max_bytes=SMALL), raise_server_exceptions=False) as found:
        yield found


def refused(answer: httpx.Response, code: int, expected: str) -> None:
    """One sentence under `detail`, and nothing else."""
    assert answer.status_code == code, answer.text
    assert list(answer.json()) == ["detail"]
    sentence = answer.json()["detail"]
    assert re.search(expected, sentence), sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Traceback" not in answer.text


def test_an_item_s_own_file_gets_what_the_model_says_of_the_item(archive, data):  # noqa: F811
    """The whole way of a file, against the same model on the stored pixels of the ledger's item."""
    ws = open_workspace(archive)
    items = ws.ledger.items()[:12]
    number, model = in_use(ws)
    expected = predict(
        ws.load(model),
        ws.images.array,
        ws.images.positions([i.id for i in items]),
        exclusive=False,
        device=Device("cpu", 64, False),
        tta="flip",
    ).probabilities
    threshold = operating_point(ws, number, model.stage)[0]
    by_command = predict_files(ws, [data / i.path for i in items])["images"]
    with TestClient(create_app(ws)) as client:
        for item, row, said in zip(items, expected, by_command, strict=True):
            answer = client.post("/predict", content=(data / item.path).read_bytes())
            assert answer.status_code == 200, answer.text
            (found,) = answer.json()["findings"]
            assert found["probability"] == pytest.approx(float(row[0]), abs=1e-4)
            assert said["probabilities"][found["finding"]] == pytest.approx(float(row[0]), abs=1e-4)
            assert found["threshold"] == pytest.approx(threshold)
            assert found["present"] == (found["probability"] >= threshold)


def test_every_finding_is_answered_at_its_operating_point(trained):
    number, model = in_use(trained)
    task = trained.ledger.task
    with TestClient(create_app(trained)) as client:
        told = client.post("/predict", content=png(GREY)).json()
    assert told["model"] == {
        "id": model.id,
        "round": number,
        "stage": model.stage,
        "card": f"/models/{model.id}/card",
    }
    assert (told["task"], told["map"]) == (task.kind, None)
    assert told["image"] == {"format": "png", "height": 20, "width": 30}
    assert [f["finding"] for f in told["findings"]] == list(task.findings)
    probabilities = [f["probability"] for f in told["findings"]]
    present = [f["present"] for f in told["findings"]]
    if task.exclusive:
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert present == [p == max(probabilities) for p in probabilities]
        assert {f["threshold"] for f in told["findings"]} == {None}
    else:
        thresholds = operating_point(trained, number, model.stage)
        assert [f["threshold"] for f in told["findings"]] == pytest.approx(thresholds)
        assert present == [p >= t for p, t in zip(probabilities, thresholds, strict=True)]


def test_a_form_and_a_body_and_dicom_are_one_image(client):
    body = png(GREY)
    raw = client.post("/predict", content=body).json()
    form = client.post("/predict", files={"image": ("a.png", body, "image/png")}).json()
    assert form == raw
    as_dicom = client.post(
        "/predict", content=written(dicom(GREY)), headers={"content-type": "application/dicom"}
    ).json()
    assert as_dicom["image"]["format"] == "dicom"
    assert as_dicom["findings"] == raw["findings"]
    curl = {"content-type": "application/x-www-form-urlencoded"}  # what `curl --data-binary` says
    assert client.post("/predict", content=body, headers=curl).json() == raw


def test_a_negative_in_dicom_is_the_picture_that_a_viewer_shows(client):
    made = dicom(255 - GREY, PhotometricInterpretation="MONOCHROME1")
    told = client.post("/predict", files={"image": written(made)}).json()
    assert told["findings"] == client.post("/predict", content=png(GREY)).json()["findings"]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: png(np.repeat(GREY[:, :, None], 3, 2)), "png"),
        (lambda: png(GREY.astype(np.uint16) * 257), "png"),
        (lambda: png(GREY, "JPEG"), "jpeg"),
        (lambda: _converted("CMYK", "JPEG"), "jpeg"),
        (lambda: _converted("YCbCr", "JPEG"), "jpeg"),
        (lambda: _converted("P", "PNG"), "png"),
        (lambda: _converted("1", "PNG"), "png"),
        (lambda: _converted("RGBA", "PNG"), "png"),
        (lambda: png(GREY, "TIFF"), "tiff"),
        (lambda: png(GREY, "BMP"), "bmp"),
        (lambda: png(GREY, "WEBP", lossless=True), "webp"),
        (lambda: png(np.zeros((1, 3000), np.uint8)), "png"),
    ],
)
def test_pixels_are_those_of_training(client, one, tmp_path, make, kind):
    """Whatever the colour space and depth, the picture is what the import would make of it."""
    body = make()
    told = client.post("/predict", content=body)
    assert told.status_code == 200, told.text
    assert told.json()["image"]["format"] == kind
    (tmp_path / "x").write_bytes(body)
    assert (api_upload.decoded(body).rgb == FolderSource(tmp_path).read("x")).all()
    said = predict_files(one, [tmp_path / "x"])["images"][0]["probabilities"]
    found = {f["finding"]: f["probability"] for f in told.json()["findings"]}
    assert found == pytest.approx(said, abs=1e-4)


def _converted(mode: str, kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(np.repeat(GREY[:, :, None], 3, 2)).convert(mode).save(file, kind)
    return file.getvalue()


def test_the_map_lies_over_the_image(trained):
    _, model = in_use(trained)
    finding = trained.ledger.task.findings[-1]
    with TestClient(create_app(trained)) as client:
        told = client.post(f"/predict?map={finding}", content=png(GREY)).json()["map"]
    assert (told["finding"], told["height"], told["width"]) == (finding, 20, 30)
    picture = Image.open(BytesIO(base64.b64decode(told["png"])))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (30, 20))
    pixels = api.pixels_of(trained, api_upload.decoded(png(GREY)))
    cam = class_activation(trained.load(model), pixels).maps[0, -1]
    assert told["peak"] == pytest.approx(float(cam.max()), abs=1e-4)
    expected = over_image(cam, 20, 30, fit="pad") * 255
    assert np.abs(np.asarray(picture)[..., 3] - expected).max() <= 1


def test_a_large_image_s_map_is_made_smaller(client):
    tall = np.zeros((3000, 1500), np.uint8)
    told = client.post("/predict?map=Spot", content=png(tall)).json()
    assert (told["map"]["height"], told["map"]["width"]) == (1024, 512)
    assert (told["image"]["height"], told["image"]["width"]) == (3000, 1500)


def test_an_unknown_finding_is_refused_with_the_known_ones(client):
    refused(client.post("/predict?map=Nodule", content=png(GREY)), 422, "use one of Spot")


def chunk(kind: bytes, content: bytes) -> bytes:
    head = len(content).to_bytes(4, "big") + kind + content
    return head + zlib.crc32(kind + content).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0"
    mark = b"\x89PNG\r\n\x1a\n"
    return mark + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def animation() -> bytes:
    file = BytesIO()
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (0, 200)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


HOSTILE = {
    "empty": (b"", 422, "is empty"),
    "text": (b"hello", 415, "send a PNG, a JPEG or a DICOM"),
    "JSON": (b'{"image": 1}', 415, "not an image"),
    "GIF": (png(GREY, "GIF"), 415, "not an image"),
    "PDF": (b"%PDF-1.7 " + b"x" * 500, 415, "not an image"),
    "zip": (b"PK\3\4" + b"\0" * 300, 415, "not an image"),
    "pickle": (b"\x80\4\x95" + b"." * 200, 415, "not an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
    "PNG's mark alone": (b"\x89PNG\r\n\x1a\n", 422, "'upload' "),
    "truncated PNG": (png(GREY)[:200], 422, "damaged"),
    "truncated JPEG": (png(GREY, "JPEG")[:300], 422, "damaged"),
    "JPEG's mark alone": (b"\xff\xd8\xff", 422, "'upload' "),
    "bomb": (bomb(60_000, 60_000), 422, "more than 100,000,000 pixels"),
    "smaller bomb": (bomb(12_000, 9_000), 422, "more than 100,000,000 pixels"),
    "zero-size": (bomb(0, 5), 422, "'upload' "),
    "animation": (animation(), 422, "several frames"),
    "flipped bits": (png(GREY)[:60] + b"\xff" * 20 + png(GREY)[80:], 422, "damaged"),
}


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_image_is_one_sentence(client, case, form):
    body, code, expected = HOSTILE[case]
    sent = {"files": {"image": (f"{SECRET}.png", body)}} if form else {"content": body}
    answer = client.post("/predict", **sent)
    refused(answer, code, expected)
    assert "SECRET" not in answer.text


@pytest.mark.parametrize("case", [c for c in BAD_DICOM if c not in ("empty", "not DICOM")])
def test_bad_dicom_is_one_sentence_and_says_nothing_of_the_patient(client, case, caplog, capfd):
    make, expected = BAD_DICOM[case]
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/predict", content=make())
    refused(answer, 422, expected)
    assert "SECRET" not in answer.text + caplog.text + "".join(capfd.readouterr())


def test_too_large_is_refused_by_what_is_claimed_and_by_what_comes(client):
    refused(client.post("/predict", content=b"x" * (SMALL + 1)), 413, "larger than 0.0625 MB")
    in_parts = (b"x" * 1000 for _ in range(SMALL // 1000 + 1))  # no length is claimed
    refused(client.post("/predict", content=in_parts), 413, "send a smaller image")
    assert client.post("/predict", content=png(GREY)).status_code == 200


FORM = "multipart/form-data; boundary=b"
FORMS = {
    "no boundary": ("multipart/form-data", b"--b\r\n", "not a whole multipart form"),
    "no part": (FORM, b"--b--\r\n", "holds no file"),
    "empty": (FORM, b"", "holds no file"),
    "garbage": (FORM, b"garbage", "not a whole multipart form|holds no file"),
    "cut off": (FORM, b"--b\r\nContent-Disposition: form-da", "multipart form|holds no file"),
    "text only": (
        FORM,
        b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--b--\r\n',
        "holds no file",
    ),
    "no name": (FORM, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart"),
    "unknown charset": (
        f"{FORM}; charset=nonsense",
        b'--b\r\nContent-Disposition: form-data; name="i"\r\n\r\nx\r\n--b--\r\n',
        "multipart form|holds no file",
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_form_that_cannot_be_used_is_one_sentence(client, case):
    kind, body, expected = FORMS[case]
    answer = client.post("/predict", content=body, headers={"content-type": kind})
    refused(answer, 400, expected)


def test_one_image_a_request(client):
    two = [("image", ("a.png", png(GREY))), ("image", ("b.png", png(GREY)))]
    refused(client.post("/predict", files=two), 400, "more than one file")


def test_nothing_is_written_logged_or_kept(one, tmp_path, monkeypatch, caplog, capfd):
    """Not even the temporary file that a large upload is usually parked in."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened: list[str] = []
    watching = True

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[2], int) and arguments[2] & 3:
            opened.append(str(arguments[0]))

    before = sorted((p, p.stat().st_mtime_ns) for p in one.root.rglob("*") if "db" not in p.name)
    big = np.random.default_rng(1).integers(0, 256, (1500, 1500), dtype=np.uint8)
    body = written(dicom(big))
    assert len(body) > 2**21
    with TestClient(create_app(one)) as client, caplog.at_level(logging.DEBUG):
        client.get("/health")
        sys.addaudithook(audit)
        answer = client.post("/predict", files={"image": (f"{SECRET}.dcm", body)})
        watching = False
    assert answer.status_code == 200
    assert not [path for path in opened if "ledger.db" not in path]
    assert not list(tmp_path.iterdir())
    after = sorted((p, p.stat().st_mtime_ns) for p in one.root.rglob("*") if "db" not in p.name)
    assert after == before
    assert "SECRET" not in answer.text + caplog.text + "".join(capfd.readouterr())


def test_health_names_the_model(client, one):
    number, model = in_use(one)
    told = client.get("/health").json()
    assert told["status"] == "ok"
    assert (told["model"]["id"], told["model"]["round"]) == (model.id, number)


def test_without_a_model_all_say_so_and_one_that_comes_is_served_without_a_restart(tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w"))
    app = create_app(workspace, check_seconds=0.0)
    with TestClient(app) as client:
        for answer in (client.get("/health"), client.post("/predict", content=png(GREY))):
            refused(answer, 503, "no trained model yet: run `readloop round`")
            assert str(tmp_path) not in answer.text
        run_round(workspace, room)
        refused(client.get("/health"), 503, "no trained model yet")
        for number in (2, 3):
            run_round(workspace, room)
            assert client.get("/health").json()["model"]["round"] == number
            told = client.post("/predict", content=png(GREY)).json()["model"]
            assert told["id"] == in_use(workspace)[1].id


def test_the_ledger_is_asked_once_in_a_while_and_the_model_loaded_once(one):
    asked: list[float] = []

    def choose(ws):
        asked.append(time.monotonic())
        return find_in_use(ws)

    keeper = ModelKeeper(one, choose, every=0.3)
    first = keeper.current()
    for _ in range(50):
        assert keeper.current() is first
    assert len(asked) == 1
    time.sleep(0.35)
    assert keeper.current() is first  # looked again, found the same, loaded nothing
    assert len(asked) == 2


def test_a_newer_model_that_cannot_be_loaded_leaves_the_older_one_in_use(one, caplog):
    number, model = in_use(one)
    choice = [(number, model)]
    keeper = ModelKeeper(one, lambda _: choice[0], every=0.0)
    first = keeper.current()
    choice[0] = (number, Model("gone", "student", "small_cnn", "models/gone.safetensors"))
    for _ in range(3):
        assert keeper.current() is first
    assert caplog.text.count("gone.safetensors") == 1
    choice[0] = (number, model)
    assert keeper.current().model == model


def test_a_model_file_that_is_gone_is_a_sentence_without_its_place(one):
    number, model = in_use(one)
    gone = Model(model.id, model.stage, model.backbone, "models/gone.safetensors")
    with TestClient(create_app(one, choose=lambda _: (number, gone))) as client:
        answer = client.get("/health")
    refused(answer, 503, "cannot be loaded: the server's log says why")
    assert "gone" not in answer.text


def test_a_fault_of_ours_is_a_sentence_and_a_line_without_values(one, caplog, capfd):
    def choose(_):
        raise RuntimeError(SECRET)

    with TestClient(create_app(one, choose=choose)) as client:
        refused(client.post("/predict", content=png(GREY)), 500, "The server failed")
    told = caplog.text + "".join(capfd.readouterr())
    assert "a request failed (RuntimeError)" in told
    assert "SECRET" not in told
    assert "Traceback" not in told


def test_the_card_is_that_of_the_export(client, one, tmp_path):
    told = client.post("/predict", content=png(GREY)).json()
    card = client.get(told["model"]["card"])
    assert run(["export", str(one.root), "--out", str(tmp_path / "out")]) == 0
    assert card.json() == json.loads((tmp_path / "out" / "model-card.json").read_text())
    teacher = next(m for _, m in one.ledger.models(2) if m.stage == "teacher")
    assert client.get(f"/models/{teacher.id}/card").json()["model"] == teacher.id
    refused(client.get("/models/nonsense/card"), 404, "No measured model")


def test_with_a_token_only_health_and_the_description_are_open(one):
    with TestClient(create_app(one, token="open sesame é")) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/openapi.json").status_code == 200
        model = client.get("/health").json()["model"]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic b3Blbg=="}):
            answer = client.post("/predict", content=b"x" * 2**20, headers=headers)
            refused(answer, 401, "token is missing or wrong")
            assert answer.headers["www-authenticate"] == "Bearer"
            refused(client.get(model["card"], headers=headers), 401, "token")
    with TestClient(create_app(one, token="sesame")) as client:
        right = {"Authorization": "Bearer sesame"}
        assert client.post("/predict", content=png(GREY), headers=right).status_code == 200
        assert client.get(model["card"], headers=right).status_code == 200


def test_the_description_tells_all_that_can_come_back(client):
    told = client.get("/openapi.json").json()
    predict_ = told["paths"]["/predict"]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(predict_["responses"])
    assert {"multipart/form-data", "application/dicom"} <= set(predict_["requestBody"]["content"])
    for code, answer in predict_["responses"].items():
        assert answer["description"]
        model = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert model == ("Prediction" if code == "200" else "Refusal")
    assert "HTTPValidationError" not in told["components"]["schemas"]
    assert client.get("/docs").status_code == 404  # it would fetch scripts from elsewhere


def test_a_wrong_method_or_path_is_told_in_json(client):
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").json() == {"detail": "Not Found"}


def test_a_full_server_says_when_to_come_again(one, monkeypatch):
    monkeypatch.setattr(api, "MAX_WAITING", 0)
    with TestClient(create_app(one)) as client:
        answer = client.post("/predict", content=png(GREY))
        refused(answer, 503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200


def test_a_slow_sender_is_given_up_and_one_that_leaves_is_no_fault(one, monkeypatch, caplog):
    monkeypatch.setattr(api_upload, "BODY_SECONDS", 0.2)
    app = create_app(one)
    sent: list[dict] = []

    async def ask(receive) -> None:
        scope = {
            "type": "http", "method": "POST", "path": "/predict", "query_string": b"",
            "headers": [], "http_version": "1.1", "scheme": "http", "root_path": "",
        }  # fmt: skip

        async def send(message):
            sent.append(message)

        await app(scope, receive, send)

    async def silence():
        await asyncio.sleep(30)

    async def leaves():
        return {"type": "http.disconnect"}

    asyncio.run(ask(silence))
    assert sent[0]["status"] == 408
    sent.clear()
    asyncio.run(ask(leaves))
    assert sent[0]["status"] == 400
    assert not caplog.records


def test_many_at_once_are_answered_as_one_by_one_and_health_does_not_wait(one):
    bodies = [png(np.roll(GREY, i, axis=0)) for i in range(10)]

    async def all_at_once() -> tuple[list[dict], float]:
        transport = httpx.ASGITransport(create_app(one))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            work = [asyncio.create_task(client.post("/predict", content=b)) for b in bodies]
            await asyncio.sleep(0)
            began = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            waited = time.monotonic() - began
            return [(await w).json() for w in work], waited

    together, waited = asyncio.run(all_at_once())
    assert waited < 5
    with TestClient(create_app(one)) as client:
        assert together == [client.post("/predict", content=b).json() for b in bodies]


@pytest.fixture
def served(one) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command on a free port."""
    command = [sys.executable, "-m", "app.cli", "api", str(one.root), "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if k != "READLOOP_API_TOKEN"}
    process = subprocess.Popen(
        [*command, "--max-mb", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).parents[2],
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + process.stderr.read()
        yield process, found[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_the_real_server_serves_and_stops_without_a_traceback(served, one):
    process, url = served
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health").json()["model"]["id"] == in_use(one)[1].id
        form = {"image": (f"{SECRET}.dcm", written(dicom(GREY)))}
        answer = client.post(f"/predict?map=Spot&note={SECRET}", files=form)
        assert answer.status_code == 200
        assert answer.json()["findings"][0]["finding"] == "Spot"
        refused(client.post("/predict", content=b"nonsense"), 415, "not an image")
        assert "server" not in answer.headers
    with httpx.Client(base_url=url, timeout=60) as client:
        refused(client.post("/predict", content=b"x" * (2**20 + 1)), 413, "larger than 1 MB")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert SECRET not in out + err
    assert err.strip() == "readloop: stopped; what was finished is kept."


def test_other_machines_need_a_token_and_are_warned_of(one, capsys, monkeypatch):
    import uvicorn

    monkeypatch.delenv("READLOOP_API_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", ""):
        assert run(["api", str(one.root), "--host", host, "--port", "0"]) == 2
        assert "set READLOOP_API_TOKEN" in capsys.readouterr().err
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)  # all but the waiting
    monkeypatch.setenv("READLOOP_API_TOKEN", "a long word")
    assert run(["api", str(one.root), "--host", "0.0.0.0", "--port", "0"]) == 0
    told = capsys.readouterr()
    assert "travel unencrypted" in told.err
    assert "a long word" not in told.out + told.err


def test_what_cannot_be_served_is_one_sentence(one, served, tmp_path, capsys, monkeypatch):
    port = served[1].rpartition(":")[2]
    assert run(["api", str(one.root), "--port", port]) == 2
    assert "choose another port" in capsys.readouterr().err
    assert run(["api", str(tmp_path)]) == 2
    assert "is not a workspace" in capsys.readouterr().err
    monkeypatch.setenv("READLOOP_API_TOKEN", "x")
    assert run(["api", str(one.root), "--host", "no.such.host.invalid"]) == 2
    assert "cannot be used" in capsys.readouterr().err
