"""Rounds, models and decisions: what came of what, who promoted it, the looks into the vault."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from typing import Any

from app.report.html import Part, Points, Section, Table
from app.report.scene import UNKNOWN, Scene, day, plural
from app.status import rounds_of
from ssl_core import tell
from ssl_core.claims.compare import Setting, settings_diff
from ssl_core.claims.promotion import candidates, find_in_use
from ssl_core.claims.watch import arms
from ssl_core.errors import ReadloopError
from ssl_core.evidence import Estimate
from ssl_core.history.dates import dates
from ssl_core.recipes import Fit, PseudoLabel, plan
from ssl_core.recipes.stages import LABELS, Stage
from ssl_core.records import CONTROL, Promotion, Round
from ssl_core.workspace import CONFIG_FILE

TITLE = "Models and lineage"
MEANS = {
    "auroc": "AUROC is the chance that a case with the finding is ranked above one without it: .5 "
    "is guessing, 1 is perfect.",
    "dice": "Dice is twice the area that the model's mask and the reader's share, divided by the "
    "sum of both: 0 is no overlap, 1 is the same mask. Two empty masks have 1, an empty one "
    "beside another 0.",
}
TOLD = ("selection.", "recipe.", "alarm.", "round.", "seed")
"""Settings whose values may be told; others hold folders and names, and are named alone."""


def lineage(scene: Scene) -> Section:
    """Every round, every model, every decision, every look into the vault."""
    rounds = scene.ws.ledger.rounds()
    if not rounds:
        parts: tuple[Part, ...] = (
            "No round has run yet, so there is no model.",
            _looks_sentence(scene),
        )
        return Section("lineage", TITLE, parts)
    return Section(
        "lineage",
        TITLE,
        (
            _in_use(scene),
            _looks_sentence(scene),
            _rounds(scene, rounds),
            *_changes(rounds),
            *_models(scene, rounds),
            *_decisions(scene),
            *_looks(scene),
        ),
    )


def _in_use(scene: Scene) -> str:
    used = find_in_use(scene.ws)
    if used is None:
        return "No model is in use: no round has trained one yet."
    number, model = used
    decided = scene.ws.ledger.promotions()
    how = (
        f"by the decision of {day(decided[-1].at)}"
        if decided
        else "by default: nothing was promoted, so the newest student is in use if it passed the "
        "gate against its own teacher, and else the teacher"
    )
    return f"In use is the {model.stage} of round {number}, model {model.id[:12]}, {how}."


def _rounds(scene: Scene, rounds: list[Round]) -> Table:
    when, told = dates(scene.ws.ledger), {one["number"]: one for one in rounds_of(scene.ws)}
    metric = scene.ws.ledger.task.metric
    rows = tuple(
        _round(one, told[one.number], when.opened, when.ended, metric) for one in reversed(rounds)
    )
    head = (
        *("round", "opened", "ended", "strategy", "recipe", "training labels", "cases asked"),
        f"{scene.curve.metric} on the vault [95 %]",
    )
    caption = (
        "Every round, newest first; a round trains on what was read before it opened. The shadow "
        "control learned from the round's random labels alone."
    )
    return Table(head, rows, caption, 5, 1)


def _round(
    one: Round, told: dict[str, Any], opened: dict[int, str], ended: dict[int, str], metric: str
) -> tuple[str, ...]:
    strategy = one.strategy + (" (fell back to chance)" if told["fell_back"] else "")
    state = day(ended.get(one.number)) if told["state"] == "finished" else told["state"]
    measured = "\n".join(f"{_stage(stage)} {_of(m)}" for stage, m in told[metric].items())
    labels = f"{told['labels']['train']:,}"
    return (
        *(f"{one.number}", day(opened.get(one.number)), state, strategy, one.recipe),
        *(labels, f"{told['asked']:,}", measured or "trained nothing"),
    )


def _stage(name: str) -> str:
    return "shadow control" if name == CONTROL else name


def _of(m: dict[str, float | None]) -> str:
    value, low, high = (math.nan if m[k] is None else m[k] for k in ("value", "low", "high"))
    found = Estimate(value, low, high, 0)  # type: ignore[arg-type]
    return UNKNOWN if math.isnan(found.value) else tell.interval(found).replace(" ", "\u00a0")


def _changes(rounds: list[Round]) -> list[Part]:
    told = [
        f"Round {after.number}: {', '.join(map(_setting, diff))}."
        for before, after in itertools.pairwise(rounds)
        if (diff := settings_diff(before, after))
    ]
    if not told:
        return ["Every round ran with the same settings."] if len(rounds) > 1 else []
    return ["What was set otherwise than in the round before:", Points(tuple(told))]


def _setting(one: Setting) -> str:
    if not one.key.startswith(TOLD):
        return f"{one.key} changed"
    return f"{one.key} {_value(one.old)} → {_value(one.new)}"


def _value(value: object) -> str:
    return "–" if value is None else str(value)


def _models(scene: Scene, rounds: list[Round]) -> list[Part]:
    made = scene.ws.ledger.models(control=True)
    if not made:
        return ["No round has trained a model yet."]
    by_round = {one.number: one for one in rounds}
    used = find_in_use(scene.ws)
    mine = None if used is None else (used[0], used[1].stage, used[1].id)
    measured = {(number, model.stage) for number, model in candidates(scene.ws)}
    labels = {n: scene.ws.ledger.label_counts(n)["train"] for n in {n for n, _ in made}}
    rows = []
    for number, model in reversed(made):
        shadow = model.stage.startswith(f"{CONTROL} ")
        state = "in use" if (number, model.stage, model.id) == mine else ""
        if not state:
            state = "" if shadow or (number, model.stage) in measured else "not measured"
        came = _came_of(by_round[number], model.stage)
        count = "random ones alone" if shadow else f"{labels[number]:,}"
        rows.append((f"{number}", model.stage, model.id[:12], model.backbone, came, count, state))
    head = ("round", "stage", "model", "network", "came of", "labels", "state")
    caption = (
        "Every model, newest first, and what it came of. A model's name is the beginning of the "
        "hash of its weights."
    )
    return [Table(head, tuple(rows), caption, 5, 1)]


def _came_of(round_: Round, stage: str) -> str:
    """What a stage of a round's recipe learned from, in words."""
    name = stage.removeprefix(f"{CONTROL} ")
    try:
        stages = {one.name: one for one in plan(json.loads(round_.config)["recipe"]).stages}
    except (ReadloopError, KeyError, ValueError):
        return f"{UNKNOWN}: this version does not know the recipe"
    one = stages.get(name)
    if not isinstance(one, Fit):
        return UNKNOWN if one is None else "the images alone, without labels"
    parts = [_learned(one, stages)]
    if one.start:
        parts.append(f"begun with the weights of {one.start}")
    if one.teacher:
        parts.append(f"taught by {one.teacher}")
    return ", ".join(part for part in parts if part)


def _learned(one: Fit, stages: dict[str, Stage]) -> str:
    unlabeled = "unlabeled images" if one.views else ""
    if one.on is None:
        return unlabeled
    source = "labels" if one.on == LABELS else one.on
    by = stages.get(one.on)
    if isinstance(by, PseudoLabel):
        source = f"pseudo-labels of {by.teacher}"
    return f"{source} and {unlabeled}" if unlabeled else source


def _decisions(scene: Scene) -> list[Part]:
    decided = scene.ws.ledger.promotions()
    if not decided:
        return ["Nobody has promoted a model or rolled one back."]
    rows = tuple(_decision(scene, one) for one in reversed(decided))
    head = ("when", "what", "model", "instead of", "by", "why", "what the gate said")
    caption = (
        "Decisions on the model in use, newest first. The gate looks at validation, never at the "
        "vault; an override went against it."
    )
    return [Table(head, rows, caption, len(head))]


def _decision(scene: Scene, one: Promotion) -> tuple[str, ...]:
    gate = json.loads(one.verdict).get("sentence", UNKNOWN) if one.verdict else "not asked"
    return (
        *(day(one.at), one.kind, f"{one.stage} of round {one.round}, {one.model_id[:12]}"),
        f"{one.replaced_stage} of round {one.replaced_round}, {one.replaced_id[:12]}",
        scene.people.name(one.decided_by),
        scene.people.clean(one.why) or "no reason given",
        gate,
    )


# The vault ----------------------------------------------------------------------------------------


def _looks_sentence(scene: Scene) -> str:
    own, replayed = len(scene.ws.ledger.vault_looks()), _replayed_looks(scene)
    told = f"This workspace has looked into the vault {plural(own, 'time')}"
    if replayed is None:
        return f"{told}; how often its replays did is not known: an arm cannot be read."
    return f"{told}, and its replays {plural(replayed, 'time')}." if replayed else f"{told}."


def _replayed_looks(scene: Scene) -> int | None:
    """Looks of the arms of every replay that lies in the workspace, whatever its settings were."""
    roots = [p.parent for p in sorted((scene.ws.root / "simulations").glob(f"*/*/{CONFIG_FILE}"))]
    try:
        return sum(len(arm.ledger.vault_looks()) for arm in arms(scene.ws, roots))
    except ReadloopError:
        return None


def _looks(scene: Scene) -> list[Part]:
    looks = scene.ws.ledger.vault_looks()
    if not looks:
        return []
    count = Counter(one.round for one in looks)
    rows = tuple(
        (f"{one.round}", one.model_id[:12], one.purpose, f"{count[one.round]}")
        for one in reversed(looks)
    )
    caption = "Every look into the vault by this workspace's rounds, newest first."
    return [Table(("round", "model", "why", "looks of that round"), rows, caption, 3)]


def how_to_read(scene: Scene) -> Section:
    """What an interval is, what the vault is, and how often it was looked at."""
    return Section(
        "reading",
        "How to read this",
        (
            Points(
                (
                    "An interval, as .900 [.850, .940], says where the true number may lie: of a "
                    "hundred such intervals about 95 hold it. A number without one was measured "
                    "once, and how far luck goes is not known.",
                    MEANS[scene.ws.ledger.task.metric],
                    "Two things are told apart only where the interval of their difference "
                    "excludes 0. "
                    "“Not told” does not mean that two things are equal.",
                    "The vault is a set of patients that was put away at the import. No model "
                    "learns from it, and none is chosen by it. Its labels are read only when a "
                    f"round measures, and every look is counted. {_looks_sentence(scene)} Each "
                    "look makes it a little less unseen.",
                    "A control is what chance would have done: labels drawn at random, with the "
                    "same training. The shadow control is trained in this workspace on its random "
                    "labels alone; the random arm of the replay starts from nothing on the same "
                    "items.",
                    "The random slice is the part of every query that is drawn by chance. It is "
                    "what makes prevalence, agreement and the audit speak of the whole pool.",
                    "“Not known” means that there is nothing to compute it from; the "
                    "report never fills in a guess.",
                )
            ),
        ),
    )
