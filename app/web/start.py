"""The form that starts a round: begins as the workspace's configuration, is checked whole."""

from __future__ import annotations

import os
import tomllib
from typing import Any

import streamlit as st
import tomli_w

from app.jobs import launcher, option_faults, start_round
from app.web import shell
from app.web.access import Person
from ssl_core.config import Config
from ssl_core.job_states import JobState
from ssl_core.round_options import differing, recipe_tables, with_options
from ssl_core.rounds import unfinished
from ssl_core.strategies import suited
from ssl_core.workspace import Workspace

JOBS = "READLOOP_JOBS"
"""The environment's name for where jobs run: "" is this machine (`readloop serve --jobs`)."""


def form(ws: Workspace, person: Person, newest: JobState | None) -> None:
    """Offer to start a round, or to go on with the interrupted one."""
    pending = unfinished(ws)
    if not person.may_run:
        st.caption("Starting a round needs the role engineer.")
    elif pending is not None:
        _resume(ws, person, pending.number)
    else:
        _new(ws, person)


def _resume(ws: Workspace, person: Person, number: int) -> None:
    with st.container(border=True, key="resume"):
        st.markdown(
            f"**Round {number} was interrupted.** It goes on where it stopped, with the settings "
            "that it was opened with."
        )
        if st.button(f"Go on with round {number}", type="primary", icon=":material/play_arrow:"):
            _begin(ws, {}, person)


def _new(ws: Workspace, person: Person) -> None:
    number = len(ws.ledger.rounds()) + 1
    config = ws.config
    tables = recipe_tables(config)
    chosen = st.selectbox("Recipe", list(tables), key="r-from")
    with st.form("round", border=True):
        st.markdown(
            f"**Round {number}** · settings of this round alone; the workspace keeps its own"
        )
        options = _fields(config, suited(ws.ledger.task.kind == "segmentation"))
        with st.expander("The recipe's settings"):
            text = st.text_area(
                "The recipe's table, as in readloop.toml",
                tomli_w.dumps(tables[chosen]),
                height=220,
                key=f"r-recipe {chosen}",  # another recipe's text is another field
            )
        sent = st.form_submit_button(
            "Start the round", type="primary", icon=":material/play_arrow:", key="r-start"
        )
    if not sent:
        return
    try:
        options["recipe"] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        st.error(shell.plain(f"recipe: this is not TOML ({error}): correct it."))
        return
    faults = option_faults(ws, options)
    for field, sentence in faults.items():
        st.error(shell.said(sentence if not field or field in sentence else f"{field}: {sentence}"))
    if not faults:
        _begin(ws, differing(config, with_options(config, options)), person)


def _fields(config: Config, names: list[str]) -> dict[str, Any]:
    chosen, computed = config.selection, config.compute
    first, second, third, fourth, fifth = st.columns(5)
    strategy = first.selectbox(
        "Query strategy", names, index=names.index(chosen.strategy), key="r-strategy"
    )
    query = second.number_input(
        "Cases to ask for", value=chosen.query_size, min_value=1, step=10, key="r-query"
    )
    share = third.number_input(
        "Random slice, %",
        value=100 * chosen.random_share,
        min_value=0.0,
        max_value=100.0,
        step=5.0,
        help="The control: drawn by chance from the whole pool. Without it nothing can be proved.",
        key="r-share",
    )
    batch = fourth.number_input(
        "Batch size", value=computed.batch_size, min_value=1, step=8, key="r-batch"
    )
    seed = fifth.number_input("Seed", value=config.seed, min_value=0, step=1, key="r-seed")
    return {
        "selection": {
            "strategy": strategy,
            "query_size": int(query),
            "random_share": round(share / 100, 6),
        },
        "compute": {"batch_size": int(batch)},
        "seed": int(seed),
    }


def _begin(ws: Workspace, options: dict[str, Any], person: Person) -> None:
    with st.spinner("Starting…"):
        start_round(ws, options, person.name, launcher(os.environ.get(JOBS, "")))
    st.rerun()
