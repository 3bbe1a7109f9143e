"""What every page stands in: the workspace, the style, sentences instead of tracebacks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import streamlit as st

from app.web.access import Person
from ssl_core.errors import ConfigError, ReadloopError
from ssl_core.workspace import CONFIG_FILE, Workspace, open_workspace

CSS = (Path(__file__).parent / "style.css").read_text("utf-8")

MARKS = "\\`*_[]<>~$:"  # what makes links, pictures, code, bold, colour or formulas of a text

Page = Callable[[Workspace, Person], None]


def style() -> None:
    """The few rules that the theme has no setting for."""
    st.html(f"<style>{CSS}</style>")


def open_app(root: Path) -> Workspace:
    """The workspace; opened once, and again when its configuration was edited.

    Raises `ReadloopError` as `open_workspace` does.
    """
    file, place = root / CONFIG_FILE, root.resolve()
    edited = file.stat().st_mtime_ns if file.is_file() else 0
    try:
        _last[place] = _opened(place, edited)
    except ConfigError as error:
        if place not in _last:
            raise
        st.warning(said(f"{error} Until then the app goes on with what was set before."))
    return _last[place]


_last: dict[Path, Workspace] = {}  # as the configuration could last be read


@st.cache_resource(show_spinner=False, max_entries=4)
def _opened(root: Path, edited: int) -> Workspace:
    return open_workspace(root)


def framed(page: Page, ws: Workspace, person: Person) -> Callable[[], None]:
    """A page as Streamlit calls it."""

    @wraps(page)
    def show() -> None:
        with sentences():
            page(ws, person)

    return show


@contextmanager
def sentences() -> Iterator[None]:
    """Show what is wrong as a sentence; what nobody foresaw goes to the log, with its traceback."""
    try:
        yield
    except ReadloopError as error:
        st.error(said(str(error)), icon=":material/error:")
    except OSError as error:
        what = f"{error.filename} cannot be used" if error.filename else "The system refused"
        st.error(
            plain(f"{what} ({error.strerror or error}): check the path and the disk."),
            icon=":material/error:",
        )
    except Exception:  # Streamlit's own control flow is no Exception
        logging.getLogger("readloop").exception("a page failed")
        st.error(
            "This page failed in a way that nobody foresaw: the log of `readloop serve` has it.",
            icon=":material/error:",
        )


def plain(text: object) -> str:
    """A text that came from outside, for Markdown: nothing in it is a link, a picture or bold."""
    return "".join(f"\\{c}" if c in MARKS else c for c in str(text).replace("\n", " "))


def said(sentence: str) -> str:
    """A sentence of ours for Markdown: its `commands` stay code, everything else is plain."""
    parts = sentence.split("`")
    if len(parts) % 2 == 0:  # one of them came from outside
        return plain(sentence)
    return "".join(f"`{part}`" if i % 2 else plain(part) for i, part in enumerate(parts))


def version(ws: Workspace) -> tuple[str, int]:
    """Names the state of a workspace, ledger and settings: what was computed for it holds until
    this changes."""
    settings = hashlib.sha256(ws.config.to_json().encode()).hexdigest()[:16]
    return f"{ws.root} {settings}", ws.ledger.version()


def heading(title: str, sentence: str = "") -> None:
    """A page's title and, beneath it, what it is for."""
    st.html(f'<h1 class="rl-title">{title}</h1><p class="rl-lead">{sentence}</p>')


def section(title: str) -> None:
    """A heading within a page."""
    st.html(f'<h2 class="rl-section">{title}</h2>')


def empty(what: str, then: str, command: str = "") -> None:
    """An empty state: what is not there yet, and what to do next."""
    with st.container(border=True):
        st.markdown(f"**{what}**  \n{then}")
        if command:
            st.code(command, language="sh")
