"""The loop under torchrun: two processes run one round, and one of them writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ssl_core.pictures.map_files import load_map
from tests import toy

ROOT = Path(__file__).parents[2]


def test_two_processes_run_rounds_and_write_each_row_once(tmp_path):
    root = toy.make(tmp_path / "w")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "app.cli", "round", str(root)]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "CI": ""}
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Next: readloop round") == 1  # one process speaks
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
