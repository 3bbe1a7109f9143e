"""A report of a workspace: the chapters in their order, as one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from app.report.audit_part import audited
from app.report.claims_part import claims, curve
from app.report.html import Section, document
from app.report.lineage_part import how_to_read, lineage
from app.report.readers_part import readers
from app.report.scene import Scene, look_at
from app.report.workspace_part import about, data_card, release
from ssl_core.errors import ReadloopError
from ssl_core.workspace import Workspace

CHAPTERS: dict[str, tuple[str, Callable[[Scene], Section]]] = {
    "workspace": ("The workspace", about),
    "claims": ("What may be claimed", claims),
    "curve": ("What the labels bought", curve),
    "data": ("Data card", data_card),
    "audit": ("Pseudo-labels, audited", audited),
    "readers": ("Readers", readers),
    "lineage": ("Models and lineage", lineage),
    "reading": ("How to read this", how_to_read),
}


def report(
    ws: Workspace, now: datetime, *, anonymous: bool = False, target: float | None = None
) -> str:
    """The report as HTML; nothing is written, no model is asked and no vault label is read.

    Args:
        ws: the workspace, in any state.
        now: the time that stands on the report, in UTC.
        anonymous: readers and those who decided are numbered; nobody is named.
        target: an AUROC (Dice of masks) in (0, 1) for forecast and savings, as `proof` has it.

    Raises:
        ReadloopError: the ledger cannot be read.
    """
    scene = look_at(ws, anonymous=anonymous, target=target)
    name = ws.root.resolve().name or "a workspace"
    made = f"Made {now:%Y-%m-%d %H:%M} UTC by Readloop {release()}"
    lead = [f"{made}; configuration {ws.config.digest()}."]
    if anonymous:
        lead.append("Readers, and those who decided on models, are numbered and not named.")
    return document(f"Report on {name}", lead, [_told(scene, key) for key in CHAPTERS])


def _told(scene: Scene, key: str) -> Section:
    """One chapter; one that cannot be told says why, and the others stand."""
    title, chapter = CHAPTERS[key]
    try:
        return chapter(scene)
    except ReadloopError as error:
        place = str(scene.ws.root)
        return Section(key, title, (f"This cannot be told: {str(error).replace(place, 'it')}",))
