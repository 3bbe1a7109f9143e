"""How the pages and the report name the lines of the label-cost curve, and what stands beside."""

from __future__ import annotations

import math

from ssl_core.claims.claim import Claim
from ssl_core.claims.curve import CONTROL, Curve, Line
from ssl_core.tell import interval

REPLAYED, SHADOW = "random arm of the replay", "shadow control"
"""The two random controls, by where they come from."""


def name_of(line: Line) -> str:
    """What a line of the curve is called: its model, and in a replay the strategy too."""
    if line.role == "control":
        return REPLAYED if line.origin == "replay" else SHADOW
    name = {"student": "student", "supervised": "teacher (labels alone)"}.get(line.role, line.stage)
    if line.stage == "intermediate":
        name = "student before fine-tuning"
    if line.origin == "rounds":
        return name
    return f"{name}, {REPLAYED if line.strategy == CONTROL else f'replay of {line.strategy}'}"


def beside(curve: Curve, told: Claim) -> str:
    """The other model of the same round, if there is one: a lead is to know which is better."""
    if told.line is None or told.point is None:
        return ""
    role = "supervised" if told.line.role == "student" else "student"
    other = curve.line(role, told.line.origin)
    same = [p for p in other.points if p.round == told.point.round] if other else []
    if other is None or not same:
        return ""
    name = "teacher, which learned from labels alone," if role == "supervised" else "student"
    return f" The {name} of the same round has {interval(same[0].auroc)}."


def by_chance(told: Claim) -> str:
    """The labels with which chance reached the claim's AUROC; "not known" where it is not."""
    found = told.control
    if found is None or math.isnan(found.labels):
        return "not known"
    if math.isinf(found.labels):
        return f"over {found.last:,}"
    return f"{found.first:,} or fewer" if found.labels <= found.first else f"{found.labels:,.0f}"


def of_chance(told: Claim) -> str:
    """Which control that number is of."""
    return REPLAYED if told.control is None or told.control.origin == "replay" else SHADOW
