"""Where the Label Studio server is installed: an environment of its own, made by uv.

It pins many packages that Readloop uses in other versions, hence apart. `server.lock` names every
package with its hash; `make lock` writes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import uv
from filelock import FileLock

from ssl_core.errors import ReadingRoomError

VERSION = "1.23.2"
LOCK = Path(__file__).with_name("server.lock")
VARIABLE = "READLOOP_LABEL_STUDIO_ENV"


def environment() -> Path:
    """The server's virtual environment: $READLOOP_LABEL_STUDIO_ENV, or one in the user's cache."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]
    return platformdirs.user_cache_path("readloop") / f"label-studio-{VERSION}-{digest}"


def install(report: Callable[[str], None] = lambda _text: None) -> Path:
    """Make the environment when it is missing (0.8 GB); gives the `label-studio` executable.

    A killed installation is begun anew; two at once are done once. An environment that was made
    by hand is used as it is. Raises `ReadingRoomError` when it cannot be made.
    """
    folder = environment()
    program, unfinished = folder / "bin" / "label-studio", _beside(folder, "unfinished")
    if _ready(program, unfinished):
        return program
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_beside(folder, "lock")):
            if not _ready(program, unfinished):
                report(f"Installing Label Studio {VERSION} into {folder}, once (0.8 GB).")
                _make(folder, unfinished)
    except OSError as error:
        raise ReadingRoomError(
            f"Label Studio cannot be installed into {folder} ({error.strerror}); name another "
            f"folder in {VARIABLE}."
        ) from error
    return program


def telling_line(text: str) -> str:
    """The last line of a program's output that says something, on one line, shortened."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    said = [line for line in lines if line]
    line = said[-1] if said else ""
    return "".join(c if c.isprintable() else "?" for c in line)[:300].rstrip(".")


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")


def _ready(program: Path, unfinished: Path) -> bool:
    return program.is_file() and not unfinished.exists()


def _make(folder: Path, unfinished: Path) -> None:
    """Create and fill the environment. What is not ours is never cleared away.

    An environment cannot be renamed into place, as its scripts name it: a file beside it says
    that it is unfinished, from before its first file until after its last.
    """
    if folder.exists() and not unfinished.exists() and any(folder.iterdir()):
        raise ReadingRoomError(
            f"{folder} is there but holds no Label Studio; move it away or name another folder "
            f"in {VARIABLE}."
        )
    unfinished.touch()
    shutil.rmtree(folder, ignore_errors=True)
    _run_uv("venv", "--python", sys.executable, str(folder))
    wanted = ["--require-hashes", "--compile-bytecode", "--requirement", str(LOCK)]
    _run_uv("pip", "install", "--python", str(folder / "bin" / "python"), *wanted)
    if not (folder / "bin" / "label-studio").is_file():
        raise ReadingRoomError(f"{LOCK} brought no label-studio; install Readloop anew.")
    unfinished.unlink()


def _run_uv(*arguments: str) -> None:
    command = [uv.find_uv_bin(), "--quiet", "--no-progress", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = telling_line(done.stderr.decode("utf-8", "replace")) or f"code {done.returncode}"
        raise ReadingRoomError(
            f"Label Studio {VERSION} cannot be installed: {said}; check the network or the "
            f"package index, or name a ready environment in {VARIABLE}."
        )
