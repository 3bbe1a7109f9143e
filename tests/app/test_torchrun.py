"""The loop under torchrun: two processes run one round, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ssl_core.pictures.map_files import load_map
from tests import toy
from tests.ssl_core.recipes.test_mask_recipe_rounds import made

ROOT = Path(__file__).parents[2]
UNEVEN = """
import os, sys, time
from ssl_core import rounds
from ssl_core.training import train
from app.cli import run

class StoppedClock:
    monotonic = staticmethod(lambda: 0.0)

def late(*arguments, replay=rounds.replay):
    time.sleep(3)
    return replay(*arguments)

if os.environ["RANK"] == "1":
    rounds.replay, train.time = late, StoppedClock
sys.exit(run(sys.argv[1:]))
"""
"""The command line, whose second process is late to a round and whose clock stands still."""


def two_rounds(root: Path, *program: str) -> None:
    """Two rounds, each by two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", *program, "round", str(root)]
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "CI": "", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Next: readloop round") == 1  # one process speaks


def test_two_processes_run_rounds_and_write_each_row_once(tmp_path):
    root = toy.make(tmp_path / "w")
    two_rounds(root, "-m", "app.cli")
    workspace = toy.opened(root)[0]
    ledger = workspace.ledger
    for number in (1, 2):
        found = load_map(workspace, number)
        assert (len(found.ids), list(found.embeddings), found.failed) == (72, ["pca"], {})
        assert found.features.any(axis=1).all()
    assert [s.name for s in ledger.stages(1)] == ["select"]
    trained = ["teacher", "pseudo-labels", "intermediate", "student", "evaluate", "select"]
    assert [s.name for s in ledger.stages(2)] == trained
    assert [m.stage for _, m in ledger.models(2)] == ["teacher", "intermediate", "student"]
    assert len({s.item_id for _, s in ledger.selected()}) == 16
    assert len(ledger.vault_looks()) == 1
    assert ledger.label_counts(2)["train"] == 8


def test_two_uneven_processes_train_on_masks_and_draw_the_pool_once(tmp_path):
    root = made(tmp_path / "w", "self_training")
    script = tmp_path / "uneven.py"
    script.write_text(UNEVEN)
    two_rounds(root, str(script))
    ledger = toy.opened(root)[0].ledger
    told = {stage.name: stage for stage in ledger.stages(2)}
    assert list(told) == [
        *("teacher 0a", "teacher 0b", "pseudo-masks 1", "student", "evaluate", "select")
    ]
    detail = json.loads(told["pseudo-masks 1"].detail)
    drawn = ledger.pseudo_labels(2, "pseudo-masks 1")
    assert len(drawn) == sum(detail["kept"])
    assert len({(row.item_id, row.finding) for row in drawn}) == len(drawn)
    assert [m.stage for _, m in ledger.models(2)] == ["teacher 0a", "teacher 0b", "student"]
    assert len(ledger.vault_looks()) == 1
