"""The app: `readloop serve W` runs this file with Streamlit, and W as its argument."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import streamlit as st

from app.web import audit, case, feature_map, overview, reading, rounds, shell
from app.web.access import Person, role_of, sign_in

PAGES = {
    "overview": (overview.page, "Overview", ":material/show_chart:"),
    "reading": (reading.page, "Reading", ":material/visibility:"),
    "rounds": (rounds.page, "Rounds", ":material/cycle:"),
    "map": (feature_map.page, "Map", ":material/bubble_chart:"),
    "case": (case.page, "Case", ":material/radiology:"),
    "audit": (audit.page, "Audit", ":material/fact_check:"),
}
# A file of ours: the icon of a page would be fetched from elsewhere.
ICON = str(Path(__file__).with_name("icon.png"))
FIRST = {"lead": "overview", "engineer": "overview", "reader": "reading"}


def main(root: Path) -> None:
    """Show the page that the address names, to whoever may see it."""
    title = f"{root.resolve().name} · Readloop"
    st.set_page_config(page_title=title, page_icon=ICON, layout="wide")
    shell.style()
    with shell.sentences():
        ws = shell.open_app(root)
        person = sign_in(ws.config)
        role = role_of(ws.config, person)
        pages = {
            name: st.Page(
                shell.framed(function, ws, Person(person, role)),
                title=title,
                icon=icon,
                url_path=name,
            )
            for name, (function, title, icon) in PAGES.items()
        }
        # The default page has no path of its own: one that leads on keeps every page's address.
        first = partial(st.switch_page, pages[FIRST[role]])
        home = st.Page(first, title="Readloop", url_path="home", default=True, visibility="hidden")
        st.navigation([home, *pages.values()], position="top").run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
