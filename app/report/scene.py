"""What every chapter of a report looks at: the workspace, its curve, and who may be named."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields

from ssl_core.claims.curve import Curve, label_cost
from ssl_core.errors import WorkspaceError
from ssl_core.evidence import Estimate
from ssl_core.masks.networks import Segmenter
from ssl_core.records import Model, person
from ssl_core.training.models import Classifier
from ssl_core.workspace import Workspace

NOT_PEOPLE = {"archive", "import"}  # the names under which no person's labels stand
UNKNOWN = "not known"


class Unasked(Workspace):
    """A workspace whose models are not asked anything: pages keep what models say, a report reads.

    What nobody has computed yet would take minutes, and would be written into the workspace.
    """

    __slots__ = ()

    def load(self, model: Model) -> Classifier:
        """Refuse, in a sentence that a report can print."""
        raise _unasked(model)

    def load_segmenter(self, model: Model) -> Segmenter:
        """The same."""
        raise _unasked(model)


def _unasked(model: Model) -> WorkspaceError:
    return WorkspaceError(
        f"what model {model.id[:12]} says of these items has not been computed yet, and a "
        "report asks no model: open the page Audit or Reading once"
    )


@dataclass(frozen=True, slots=True)
class People:
    """The names that a report shows; `shown` maps every person to one, empty where all are."""

    shown: dict[str, str]

    def name(self, reader: str) -> str:
        """How a reader is called in the report, also where they read again."""
        who = person(reader)
        return self.shown.get(who, who) + reader.removeprefix(who)

    def clean(self, text: str) -> str:
        """What somebody typed, with every known name replaced."""
        if not self.shown:
            return text
        known = {one.casefold(): shown for one, shown in self.shown.items()}
        names = "|".join(re.escape(p) for p in sorted(self.shown, key=len, reverse=True))
        pattern = rf"(?<!\w)(?:{names})(?!\w)"
        return re.sub(pattern, lambda m: known[m[0].casefold()], text, flags=re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scene:
    """One look at a workspace, for all chapters."""

    ws: Workspace
    curve: Curve
    people: People
    target: float | None = None


def look_at(ws: Workspace, *, anonymous: bool = False, target: float | None = None) -> Scene:
    """Read what the chapters share. Raises `ReadloopError` where there is no curve to be had."""
    unasked = Unasked(**{field.name: getattr(ws, field.name) for field in fields(ws)})
    names = _pseudonyms(ws) if anonymous else {}
    return Scene(unasked, label_cost(unasked), People(names), target)


def readers_of(ws: Workspace) -> set[str]:
    """Everybody who has read, was asked to read, or is named as a reader."""
    log, chosen = ws.ledger.reading, ws.config.reading
    found = {read.reader for read in log.reads()} | {one.reader for one in log.assignments()}
    found |= {label.reader for label in ws.ledger.labels() if label.source != "import"}
    found |= {*chosen.readers, chosen.adjudicator}
    return {person(reader) for reader in found} - NOT_PEOPLE - {""}


def _pseudonyms(ws: Workspace) -> dict[str, str]:
    """Numbers in an order that tells nothing, and stays the same from report to report."""
    salt, readers = ws.ledger.identity(), readers_of(ws)
    others = {one.decided_by for one in ws.ledger.promotions()} - readers

    def order(name: str) -> str:
        return hashlib.sha256(f"{salt} {name}".encode()).hexdigest()

    numbered = {name: f"reader {k}" for k, name in enumerate(sorted(readers, key=order), 1)}
    return numbered | {name: f"person {k}" for k, name in enumerate(sorted(others, key=order), 1)}


def percent(found: Estimate) -> str:
    """A share with its interval, or that it is not known."""
    if math.isnan(found.value):
        return UNKNOWN
    value = f"{found.value:.0%}"
    return value if math.isnan(found.low) else f"{value} [{found.low:.0%}, {found.high:.0%}]"


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 round", "3 rounds"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def day(at: str | None) -> str:
    """A date of the ledger as people write it, to the minute, in UTC."""
    return UNKNOWN if not at else at[:16].replace("T", " ")
