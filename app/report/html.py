"""A report as one HTML file: sections of plain data, escaped and laid out, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

CSS = (Path(__file__).parent / "report.css").read_text("utf-8")
MOST = 300  # rows of a table: a report is read by people, and stays small


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head; the first `left` columns and the last `tail` are words.

    Between them stand numbers. A cell may have several lines.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    left: int = 1
    tail: int = 0


@dataclass(frozen=True, slots=True)
class Points:
    """Sentences that stand one below the other."""

    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing of ours as SVG, which is not escaped again, and the line beneath it."""

    svg: str
    caption: str


Part = str | Points | Table | Figure
"""A paragraph is a string; `words` between backticks are shown as a command."""


@dataclass(frozen=True, slots=True)
class Section:
    """One chapter: `key` is its anchor, `parts` come in order."""

    key: str
    title: str
    parts: tuple[Part, ...]


def document(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page. Every text is escaped here, and nowhere else but in drawings."""
    links = "".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{''.join(map(_paragraph, lead))}"
        f'<nav aria-label="Chapters"><ol>{links}</ol></nav>\n</header>\n<main>\n'
        f"{''.join(map(_section, sections))}</main>\n</body>\n</html>\n"
    )


def said(sentence: str) -> str:
    """A sentence for HTML: its `commands` are code, all else is plain."""
    parts = sentence.split("`")
    if len(parts) % 2 == 0:  # one of them came from outside
        return escape(sentence)
    told = (f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(parts))
    return "".join(told)


def _section(one: Section) -> str:
    parts = "".join(map(_part, one.parts))
    return f'<section id="{one.key}">\n<h2>{escape(one.title)}</h2>\n{parts}</section>\n'


def _part(one: Part) -> str:
    if isinstance(one, str):
        return _paragraph(one)
    if isinstance(one, Points):
        rows = "".join(f"<li>{said(text)}</li>\n" for text in one.sentences)
        return f"<ul>\n{rows}</ul>\n" if rows else ""
    if isinstance(one, Figure):
        return f"<figure>\n{one.svg}\n<figcaption>{said(one.caption)}</figcaption>\n</figure>\n"
    return _table(one)


def _paragraph(text: str) -> str:
    return f"<p>{said(text)}</p>\n"


def _table(one: Table) -> str:
    head = "".join(
        f'<th scope="col"{_side(one, k)}>{_unbroken(h)}</th>' for k, h in enumerate(one.head)
    )
    rows = "".join(_row(one, row) for row in one.rows[:MOST])
    left = len(one.rows) - MOST
    more = f" {left:,} more rows are not shown." if left > 0 else ""
    return (
        f'<p class="caption">{said(one.caption)}{more}</p>\n<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def _unbroken(head: str) -> str:
    return escape(head).replace("[95 %]", "[95\u00a0%]")


def _row(table: Table, row: Sequence[str]) -> str:
    cells = "".join(
        f"<td{_side(table, k)}>{escape(cell).replace(chr(10), '<br>')}</td>"
        for k, cell in enumerate(row)
    )
    return f"<tr>{cells}</tr>\n"


def _side(table: Table, column: int) -> str:
    words = column < table.left or column >= len(table.head) - table.tail
    return "" if words else ' class="n"'
