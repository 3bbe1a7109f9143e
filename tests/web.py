"""Pages of the app as Streamlit's own AppTest runs them, and what stands on them."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from app.web.scatter import decode

PAGES = ("overview", "reading", "rounds", "map", "case", "audit")
SECONDS = 60
MESSAGES = ("error", "warning", "info", "success")
TEXTS = (*MESSAGES, "markdown", "caption", "html", "code", "text")


def _one(root: str, page: str, name: str, role: str) -> None:
    from pathlib import Path

    from app.web import main, shell
    from app.web.access import Person

    with shell.sentences():
        ws = shell.open_app(Path(root))
        shell.framed(main.PAGES[page][0], ws, Person(name, role))()


def _whole(root: str) -> None:
    from pathlib import Path

    from app.web.main import main

    main(Path(root))


def page(root: Path, name: str, *, role: str = "engineer", item: str = "") -> AppTest:
    """One page of a workspace, not yet run."""
    told = {"root": str(root), "page": name, "name": "me", "role": role}
    at = AppTest.from_function(_one, kwargs=told, default_timeout=SECONDS)
    if item:
        at.query_params["item"] = item
    return at


def shown(root: Path, name: str, **more: str) -> AppTest:
    """One page as it looks at first; nothing went wrong that nobody foresaw."""
    return checked(page(root, name, **more).run())


def app(root: Path, user: dict[str, Any] | None = None) -> AppTest:
    """The whole app as somebody opens it; the first page of their role is shown."""
    at = AppTest.from_function(_whole, kwargs={"root": str(root)}, default_timeout=SECONDS)
    at.user = user or {}
    return checked(at.run())


def checked(at: AppTest) -> AppTest:
    """The page again; fails where it shows an exception."""
    assert not at.exception, [e.message for e in at.exception]
    assert not [e for e in errors(at) if "nobody foresaw" in e]
    return at


def elements(at: AppTest) -> list[Any]:
    """Everything on the page, in order."""
    return list(_below(at._tree))


def _below(block: Any) -> Any:
    for child in block.children.values():
        yield child
        if hasattr(child, "children"):
            yield from _below(child)


def text(at: AppTest) -> str:
    """All text of the page."""
    return plain("\n".join(str(e.value) for e in elements(at) if e.type in TEXTS))


def plain(markdown: str) -> str:
    """What is read where Markdown stands: marks that were made harmless are marks."""
    return re.sub(r"\\([^A-Za-z0-9\s])", r"\1", markdown)


def errors(at: AppTest) -> list[str]:
    return [plain(e.value) for e in at.error]


def metrics(at: AppTest) -> dict[str, str]:
    return {m.label: m.value for m in at.metric}


def captions(at: AppTest) -> list[str]:
    """What stands under every picture of the page's grids."""
    return [
        c for e in at.get("html") for c in re.findall(r"<figcaption>(.*?)</figcaption>", e.value)
    ]


def linked(at: AppTest) -> list[str]:
    """The items that the pictures lead to."""
    return [i for e in at.get("html") for i in re.findall(r"case\?item=(\w+)", e.value)]


def plotted(at: AppTest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and columns of the page's scatter plot."""
    (plot,) = at.get("bidi_component")
    return decode(plot.proto.bytes)


def picture_of(at: AppTest) -> list[bytes]:
    """Everything the browser is sent, element by element."""
    protos = [deepcopy(e.proto) for e in elements(at) if e.proto is not None]
    for proto in protos:
        if hasattr(proto, "deferred_file_id"):  # drawn anew whenever a page is run
            proto.deferred_file_id = ""
    return [proto.SerializeToString(deterministic=True) for proto in protos]
