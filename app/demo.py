"""`make demo`: the main job end to end on the shipped sample, with a random control.

Three rounds are replayed by a simulated reader, beside the control. Then people take over: the
replayed history goes on as a workspace of its own, whose fourth batch waits in Label Studio.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from app.cli import run
from connectors.label_studio import server
from ssl_core.arms import Arm, open_arm
from ssl_core.config import save_config
from ssl_core.errors import ReadloopError
from ssl_core.workspace import CONFIG_FILE, IMAGES_FOLDER, open_workspace

SAMPLE = Path(__file__).parents[1] / "sample_data"
DEMO = Path("demo")
ARCHIVE, READING = DEMO / "workspace", DEMO / "reading"
BUDGETS = (100, 200, 400)
FOURTH = 40  # cases of the batch that waits for a person

REPLAY = (
    f"init {ARCHIVE} --images {SAMPLE} --manifest {SAMPLE / 'manifest.csv'} "
    "--path-column path --group-column patient_id --findings-column findings "
    "--archive --preset tiny",
    f"simulate {ARCHIVE} --budgets {','.join(map(str, BUDGETS))} --strategy margin "
    f"--control random --seeds 0 --out {DEMO / 'label-cost.json'}",
)
READ = (
    f"round {READING} --query-size {FOURTH}",
    f"label-studio up {READING}",
    f"queue {READING}",
)


def main(arguments: list[str]) -> int:
    """Make the demo afresh; `--no-label-studio` leaves the reading room out."""
    if READING.is_dir():
        server.stop(READING)
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    if code := _run(REPLAY):
        return code
    print(f"\nThe plot is {DEMO / 'label-cost.png'}.")
    if "--no-label-studio" in arguments:
        print(f"Go on: readloop round {ARCHIVE}")
        return _open_app(ARCHIVE)
    hand_over()
    if code := _run(READ):
        print("The reading room is not there; the rest of the demo is: make demo LABEL_STUDIO=0")
        return code
    print(
        f"\nRead some cases at the link above, then: readloop sync {READING} && "
        f"readloop round {READING}\nTo stop the server: readloop label-studio down {READING}"
    )
    return _open_app(READING)


def _open_app(root: Path) -> int:
    """Serve the app where a person sits; say how where nobody does, as in CI."""
    if not sys.stdout.isatty():
        print(f"The app: readloop serve {root}")
        return 0
    return _run((f"serve {root}",))


def hand_over() -> None:
    """Let the replayed rounds of the strategy's arm go on as a workspace that people read."""
    archive = open_workspace(ARCHIVE)
    arm = open_arm(archive, Arm("margin", 0, BUDGETS))
    arm.ledger.close()
    shutil.copytree(arm.root, READING)
    shutil.copytree(ARCHIVE / IMAGES_FOLDER, READING / IMAGES_FOLDER)
    shutil.copytree(ARCHIVE / "simulations", READING / "simulations")  # the control of its curve
    shown = archive.config.map.model_dump()  # arms have no map, and no shadow control
    asked = archive.config.selection.model_dump(include={"control", "fall_back_after"})
    config = arm.config.changed(reading={"room": "label_studio"}, map=shown, selection=asked)
    save_config(config, READING / CONFIG_FILE)


def _run(steps: tuple[str, ...]) -> int:
    for step in steps:
        print(f"\n$ readloop {step}", flush=True)
        if code := run(step.split()):
            return code
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ReadloopError as error:
        sys.exit(f"readloop: {error}")
