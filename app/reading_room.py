"""Wiring of the reading room: which server, whose token, which pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.rooms import is_archive
from connectors.folder import FolderSource
from connectors.label_studio import server
from connectors.label_studio.client import Client
from connectors.label_studio.pictures import LocalFiles
from connectors.label_studio.room import LabelStudioRoom
from ssl_core.errors import ReadingRoomError, WorkspaceError
from ssl_core.masks.shown import ShownMasks
from ssl_core.progress import Progress, Report, silent
from ssl_core.workspace import Workspace

URL, TOKEN = "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"
ROOT = "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"


def label_studio_room(ws: Workspace, report: Report = silent) -> LabelStudioRoom:
    """The workspace's room on its own Label Studio, or on the one that the environment names.

    Raises:
        WorkspaceError: a simulated reader answers in this workspace.
        ReadingRoomError: there is no server, no token, or no folder for pictures.
    """
    if is_archive(ws):
        raise WorkspaceError(
            f"In {ws.root} a simulated reader answers: to have people read, set `room = "
            '"label_studio"` under [reading] in readloop.toml.'
        )
    url, token, media = _server(ws.root)
    reading = ws.config.reading

    def count(what: str, done: int, of: int) -> None:
        report(Progress(what, done, of))

    return LabelStudioRoom(
        Client(url, token),
        ws.ledger.task,
        ws.ledger.identity(),
        title=ws.root.resolve().name,
        readers=reading.readers,
        adjudicator=reading.adjudicator,
        pictures=LocalFiles(media, _pixels(ws)),
        masks=_masks(ws),
        count=count,
    )


def _masks(ws: Workspace) -> ShownMasks:
    """Keeps what readers paint at the size of the file that an item was imported from."""
    paths = {item.id: item.path for item in ws.ledger.items()}
    source = FolderSource(Path(ws.config.images.folder))

    @lru_cache(maxsize=64)  # a picture's findings come one after the other
    def own(item_id: str) -> tuple[int, int]:
        height, width = source.read(paths[item_id]).shape[:2]  # upright, as it was imported
        return height, width

    return ShownMasks(ws.masks_folder, ws.images.size, ws.images.fit, own)


def _server(root: Path) -> tuple[str, str, Path]:
    """Address, token and document root: the environment's, or those of the local server."""
    if url := os.environ.get(URL):
        token = os.environ.get(TOKEN)
        if not token:
            raise ReadingRoomError(f"{URL} is set and {TOKEN} is not: set it to a token of yours.")
        if not (media := os.environ.get(ROOT)):
            raise ReadingRoomError(
                f"{URL} is set and {ROOT} is not: set it to the folder that Label Studio serves as "
                "local files, shared with this machine."
            )
        return url, token, Path(media)
    if server.running(root) is None or (known := server.sign_in(root)) is None:
        raise ReadingRoomError(
            f"No Label Studio runs for {root}: start it (`readloop label-studio up {root}`), or "
            f"set {URL} and {TOKEN}."
        )
    return known.url, known.token, server.media_folder(root)


def _pixels(ws: Workspace) -> Callable[[str], npt.NDArray[np.uint8]]:
    """Reads an item's picture: the file it was imported from, or the working size."""
    if ws.config.reading.resolution == "working":
        return lambda item_id: np.moveaxis(
            ws.images.array[int(ws.images.positions([item_id])[0])], 0, -1
        )
    paths = {item.id: item.path for item in ws.ledger.items()}
    source = FolderSource(Path(ws.config.images.folder))
    return lambda item_id: source.read(paths[item_id])
