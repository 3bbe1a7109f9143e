"""`make demo`: the main job end to end on the shipped sample, with a random control."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from app.cli import run

SAMPLE = Path(__file__).parents[1] / "sample_data"
DEMO = Path("demo")
BUDGETS = "100,200,400"


def main() -> int:
    """Make the workspace afresh, replay three rounds beside the control, show what it cost."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    workspace = DEMO / "workspace"
    steps = (
        f"init {workspace} --images {SAMPLE} --manifest {SAMPLE / 'manifest.csv'} "
        "--path-column path --group-column patient_id --findings-column findings "
        "--archive --preset tiny",
        f"simulate {workspace} --budgets {BUDGETS} --strategy margin --control random "
        f"--seeds 0 --out {DEMO / 'label-cost.json'}",
    )
    for step in steps:
        print(f"\n$ readloop {step}", flush=True)
        code = run(step.split())
        if code:
            return code
    print(f"\nThe plot is {DEMO / 'label-cost.png'}. Go on: readloop round {workspace}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
