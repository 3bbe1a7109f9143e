"""The process of one arm of a benchmark: `python -m app.bench.arm`, told what to do on its input.

The first line says it in JSON. The input stays open as long as who started it lives: when it ends,
so does this process, wherever it is; an arm goes on from there another time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from app.job_runner import refused_by_the_system
from app.memory import keep_freed_memory
from app.rooms import archive_room
from ssl_core.arm_runs import run_arm
from ssl_core.arms import Arm
from ssl_core.config import Config, validated
from ssl_core.errors import ReadloopError
from ssl_core.workspace import Workspace, open_workspace

ORPHANED = 130


def order_for(workspace: Workspace, arm: Arm) -> str:
    """What this process is told of an arm."""
    return json.dumps(
        {
            "root": str(workspace.root.resolve()),
            "config": workspace.config.model_dump(),
            "arm": [arm.strategy, arm.seed, list(arm.budgets), arm.validation],
        }
    )


def main() -> int:
    """Run the arm that the input names; 2, after one sentence, where it cannot be run."""
    asked = json.loads(sys.stdin.readline())
    Thread(target=_end_with_input, daemon=True).start()
    keep_freed_memory()
    try:
        _run(asked)
    except (ReadloopError, OSError) as error:
        told = refused_by_the_system(error) if isinstance(error, OSError) else error
        print(told, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return ORPHANED
    return 0


def _run(asked: dict[str, Any]) -> None:
    base = open_workspace(Path(asked["root"]))
    config = validated(Config, asked["config"], "the benchmark")
    strategy, seed, budgets, validation = asked["arm"]
    workspace = Workspace(base.root, config, base.ledger, base.images)
    for _ in run_arm(workspace, archive_room, Arm(strategy, seed, tuple(budgets), validation)):
        pass


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(ORPHANED)  # a thread cannot raise in the main one, and nothing is lost


if __name__ == "__main__":
    sys.exit(main())
