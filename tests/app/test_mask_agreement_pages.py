"""Two readers' masks on the pages: how far they agree, on the Reading and the Audit page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.cli import run
from connectors.memory import MemoryRoom
from ssl_core.masks.files import keep
from ssl_core.readers.reading import queue, sync
from ssl_core.workspace import open_workspace
from tests import web

pytestmark = pytest.mark.usefixtures("no_label_studio")
SHAPE = (20, 30)


@pytest.fixture
def root(tmp_path) -> Path:
    """Two readers drew the lung of each validation item, Dice 0.8; neither saw a nodule."""
    data, rng = tmp_path / "data", np.random.default_rng(4)
    data.mkdir()
    lines = ["path,patient"]
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, SHAPE, dtype=np.uint8)).save(data / f"{i}.png")
        lines.append(f"{i}.png,P{i}")
    (data / "m.csv").write_text("\n".join(lines))
    where = ["--images", data, "--manifest", data / "m.csv", "--group-column", "patient"]
    task = ["--unlabeled", "segmentation", "--findings", "lung,nodule"]
    made = tmp_path / "w"
    sizes = ["--preset", "tiny", "--size", "16", "--validation", "0.4", "--vault", "0.2"]
    assert run(list(map(str, ["init", made, *where, *task, *sizes]))) == 0
    toml = (made / "readloop.toml").read_text().replace('    "reader",', '    "ana",\n    "ben",')
    (made / "readloop.toml").write_text(toml)
    ws, room = open_workspace(made), MemoryRoom(("ana", "ben"))
    queue(ws, room)
    for reader, columns in (("ana", 4), ("ben", 6)):
        mask = np.zeros(SHAPE, bool)
        mask[:, :columns] = True
        masks = (("lung", keep(ws.masks_folder, mask)),)
        for one in room.waiting[reader]:
            room.submit(one.item_id, {"lung": 1.0, "nodule": 0.0}, reader=reader, masks=masks)
    sync(ws, room)
    ws.ledger.close()
    return made


def table(at: AppTest) -> dict[str, dict[str, object]]:
    """The rows of the table of Dice, by finding."""
    (found,) = (d.value for d in at.dataframe if "Dice [95 %]" in d.value)
    return {row["finding"]: row for row in found.to_dict("records")}


def test_dice_stands_beside_kappa(root):
    at = web.page(root, "reading")
    at.session_state["r-tabs"] = "Agreement"
    found = table(web.checked(at.run()))
    assert found["lung"]["readers"] == "ana and ben"
    assert found["lung"]["Dice [95 %]"].startswith("0.80 [")
    assert found["lung"]["items"] == found["lung"]["drawn"] == 8  # the vault's are not looked at
    assert found["nodule"]["Dice [95 %]"].startswith("1.00 [0.")
    assert found["nodule"]["Dice where drawn [95 %]"] == "–"
    assert found["nodule"]["both absent"] == 8
    assert "both absent is 1, one absent is 0" in web.text(at)


def _pool(root: str) -> None:
    from pathlib import Path

    from app.web import audit_pool
    from ssl_core.workspace import open_workspace

    audit_pool.show(open_workspace(Path(root)))


def test_on_the_pool_it_is_weighted(root):
    at = web.checked(
        AppTest.from_function(_pool, kwargs={"root": str(root)}, default_timeout=60).run()
    )
    assert table(at)["lung"]["Dice [95 %]"].startswith("0.80 [")
    assert "Weighted to speak of the pool." in web.text(at)


def test_a_lost_mask_is_a_sentence(root):
    for one in (root / "masks").glob("*.png"):
        one.unlink()
    at = web.page(root, "reading")
    at.session_state["r-tabs"] = "Agreement"
    assert any("is missing: put it back from a copy" in e for e in web.errors(at.run()))


def test_it_stands_in_the_report(root, tmp_path):
    out = tmp_path / "report.html"
    assert run(["report", str(root), "--out", str(out), "--anonymous"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Agreement of masks." in text
    assert "0.80 [0." in text
    assert "ana and ben" not in text
