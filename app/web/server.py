"""Streamlit in this process, with everything imported before the first browser comes."""

from __future__ import annotations

import logging
from pathlib import Path

from app.web.start import JOBS

MAIN = Path(__file__).with_name("main.py")
CACHES = "streamlit.runtime.caching.cache_data_api"


def run(root: Path, host: str, port: int, secrets: Path | None = None) -> None:
    """Serve the app of a workspace until the process is told to stop."""
    from streamlit.web import cli

    _import_pages()
    options = [f"--server.address={host}", f"--server.port={port}"]
    if secrets is not None:
        options.append(f"--secrets.files={secrets}")
    # What follows -- is the script's; its folder holds the theme (.streamlit/config.toml).
    cli.main(["run", str(MAIN), *options, "--", str(root)], standalone_mode=False)


def _import_pages() -> None:
    """Torch and the pages take seconds to import: now, and not at first sight."""
    logger = logging.getLogger(CACHES)
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of caches that are made before there is a server
    from app.web import main

    logger.setLevel(level)
    assert main.PAGES


__all__ = ["JOBS", "run"]
