"""Streamlit in this process, with everything imported before the first browser comes."""

from __future__ import annotations

from pathlib import Path

from app.web.start import JOBS

MAIN = Path(__file__).with_name("main.py")


def run(root: Path, host: str, port: int, secrets: Path | None = None) -> None:
    """Serve the app of a workspace until the process is told to stop."""
    from streamlit.web import bootstrap

    from app.web import main  # torch and the pages take seconds to import: now, not on first sight

    options = {
        "server_address": host,
        "server_port": port,
        "global_developmentMode": False,
    }
    if secrets is not None:
        options["secrets_files"] = [str(secrets)]
    assert main.PAGES
    bootstrap.load_config_options(options)
    bootstrap.run(str(MAIN), False, [str(root)], options)


__all__ = ["JOBS", "run"]
