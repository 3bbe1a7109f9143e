"""AUROC (or Dice) with its interval against labels, as an SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ssl_core.records import METRICS

WIDTH, HEIGHT = 860, 400
LEFT, RIGHT, BOTTOM = 62, 18, 48
KEY = 24  # a line of the key
DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 4")
COLOURS = ("s1", "s2", "s3", "s4", "s5")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One line: its name, `grey` for a control, and (labels, AUROC, low, high), NaN if unknown."""

    name: str
    grey: bool
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class _Look:
    colour: str
    dash: str


@dataclass(frozen=True, slots=True)
class _Plane:
    """From labels and AUROC to places on the drawing."""

    x0: float
    x1: float
    y0: float
    top: float

    def x(self, labels: float) -> float:
        """Where so many labels stand."""
        return LEFT + (labels - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, auroc: float) -> float:
        """Where an AUROC stands; 1 is at the top, and no end of an interval is beyond."""
        height = HEIGHT - BOTTOM - self.top
        return self.top + (1 - min(max(auroc, self.y0), 1.0)) / (1 - self.y0) * height


def curve_svg(lines: Sequence[Drawn], title: str, metric: str = METRICS["auroc"]) -> str:
    """The drawing; "" where no line has a point that is known."""
    known = [_known(line) for line in lines]
    shown = [line for line in known if line.points]
    if not shown:
        return ""
    looks = _looks(shown)
    plane = _plane(shown, 16 + KEY * math.ceil(len(shown) / 2))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        *_axes(plane, metric),
        *(p for k, line in enumerate(shown) for p in _line(line, looks[line.name], plane, k)),
        *_key(shown, looks),
        "</svg>",
    ]
    return "\n".join(parts)


def _known(line: Drawn) -> Drawn:
    points = tuple(p for p in line.points if not math.isnan(p[1]))
    return Drawn(line.name, line.grey, points)


def _looks(lines: Sequence[Drawn]) -> dict[str, _Look]:
    """Controls are grey and dashed; the others differ by colour, and by dash where colours end."""
    ours = [line for line in lines if not line.grey]
    greys = [line for line in lines if line.grey]
    looks = {
        line.name: _Look(COLOURS[i % 5], DASHES[0 if i == 0 else 2 + i % 3])
        for i, line in enumerate(ours)
    }
    grey = {line.name: _Look("control", DASHES[1 + i % 4]) for i, line in enumerate(greys)}
    return looks | grey


def _plane(lines: Sequence[Drawn], top: float) -> _Plane:
    labels = [p[0] for line in lines for p in line.points]
    lows = [p[1] if math.isnan(p[2]) else p[2] for line in lines for p in line.points]
    room = max((max(labels) - min(labels)) * 0.04, max(labels) * 0.02, 1.0)
    lowest = min(0.95, max(0.0, math.floor(min(lows) * 20) / 20))
    return _Plane(min(labels) - room, max(labels) + room, lowest, top)


def _axes(plane: _Plane, metric: str) -> list[str]:
    parts = []
    for value in _steps(plane.y0, 1.0, 6):
        y = plane.y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(_text(LEFT - 8, y + 4, f"{value:.3g}", "end"))
    for value in _steps(plane.x0, plane.x1, 8):
        if value == int(value):
            parts.append(_text(plane.x(value), HEIGHT - BOTTOM + 20, f"{value:,.0f}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "training labels", "middle"))
    x, y = 14, (plane.top + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 {x} {y:.0f})"'
    parts.append(_text(x, y, f"{metric} on the vault", "middle", turned))
    return parts


def _line(line: Drawn, look: _Look, plane: _Plane, place: int) -> list[str]:
    """Path, bars and points; a few pixels to the side, lest bars at one budget hide each other."""
    colour = f"var(--{look.colour})"
    aside = (-1) ** place * (place + 1) // 2 * 5
    places = [(plane.x(p[0]) + aside, plane.y(p[1]), p) for p in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    parts = [f'<polyline class="path" points="{path}" style="stroke:{colour}"{_dashed(look)}/>']
    for x, y, (_, _, low, high) in places:
        if not math.isnan(low):
            ends = f'y1="{plane.y(low):.1f}" y2="{plane.y(high):.1f}"'
            parts.append(
                f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" {ends} style="stroke:{colour}"/>'
            )
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{colour}"/>')
    return parts


def _key(lines: Sequence[Drawn], looks: dict[str, _Look]) -> list[str]:
    parts = []
    for i, line in enumerate(lines):
        x, y = LEFT + (i % 2) * (WIDTH - LEFT) / 2, 12 + KEY * (i // 2)
        look = looks[line.name]
        stroke = f'style="stroke:var(--{look.colour})"{_dashed(look)}'
        parts.append(f'<line class="path" x1="{x}" x2="{x + 34}" y1="{y}" y2="{y}" {stroke}/>')
        short = line.name if len(line.name) <= 50 else f"{line.name[:49]}…"
        parts.append(_text(x + 42, y + 4, short, "start"))
    return parts


def _dashed(look: _Look) -> str:
    return f' stroke-dasharray="{look.dash}"' if look.dash else ""


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place} {more}>{escape(words)}</text>".replace(" >", ">")


def _steps(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, `most` at the most."""
    rough = (high - low) / most
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
