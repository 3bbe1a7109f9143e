"""The `readloop` command before its imports, which take seconds: Ctrl-C must be quiet there too."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from app import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()
