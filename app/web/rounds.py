"""The Rounds page: start a round and watch it, its history, two rounds side by side, the model."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import streamlit as st

from app import show
from app.jobs import log_tail
from app.status import rounds_of, unlearned_line
from app.web import live, shell, start
from app.web.access import Person
from app.web.blind import hidden
from app.web.charts import forest
from app.web.pictures import grid
from ssl_core.claims import promotion
from ssl_core.claims.compare import Comparison, compare_rounds, settings_diff
from ssl_core.job_states import JobState
from ssl_core.records import METRICS, Promotion, Task
from ssl_core.rounds import unfinished
from ssl_core.workspace import Workspace


def page(ws: Workspace, person: Person) -> None:
    """Show the page."""
    shell.heading("Rounds", "Train on what was read, and ask for the next cases.")
    newest = ws.ledger.jobs.newest()
    live.notice(newest)
    if newest is not None and newest.lives:
        live.watch(ws, person)
    else:
        start.form(ws, person, newest)
    tabs = st.tabs(["History", "Compare", "Model in use", "Jobs"])
    with tabs[0]:
        _history(ws)
    with tabs[1]:
        _compare(ws, person)
    with tabs[2]:
        _models(ws, person)
    with tabs[3]:
        _jobs(ws)


# History ------------------------------------------------------------------------------------------


@st.cache_resource(show_spinner=False, max_entries=4)
def _rounds(_ws: Workspace, version: tuple[str, int]) -> list[dict[str, Any]]:
    return rounds_of(_ws)


def _history(ws: Workspace) -> None:
    rounds = _rounds(ws, shell.version(ws))
    if not rounds:
        shell.empty("No round yet.", "The first one only asks: nothing is labeled to train on.")
        return
    changes = _changes(ws, shell.version(ws))
    task = ws.ledger.task
    rows = [{**_row(one, task), "changed": changes[one["number"]]} for one in reversed(rounds)]
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    if rounds and (names := rounds[-1]["not_learned"]):
        st.warning(shell.plain(unlearned_line(rounds[-1]["number"], names, task)))
    pending = unfinished(ws)
    if pending is not None:
        st.caption(f"Round {pending.number} is not finished; it goes on where it stopped.")


@st.cache_data(show_spinner=False, max_entries=4)
def _changes(_ws: Workspace, version: tuple[str, int]) -> dict[int, str]:
    """By round, what was set otherwise than in the round before."""
    rounds = _ws.ledger.rounds()
    told = {r.number: "" for r in rounds}
    for before, after in itertools.pairwise(rounds):
        diff = settings_diff(before, after)
        told[after.number] = ", ".join(f"{s.key} {_text(s.old)} → {_text(s.new)}" for s in diff)
    return told


def _row(one: dict[str, Any], task: Task) -> dict[str, Any]:
    measured = one[task.metric].items()
    told = "; ".join(f"{stage} {_interval(found)}" for stage, found in measured)
    return {
        "round": one["number"],
        "state": one["state"],
        "strategy": one["strategy"],
        "recipe": one["recipe"],
        "training labels": one["labels"]["train"],
        f"vault {task.metric_name} [95 %]": told or "–",
        "cases asked": one["asked"],
        "time": show.duration(one["seconds"]),
    }


def _interval(found: dict[str, float | None]) -> str:
    value, low, high = (found[k] for k in ("value", "low", "high"))
    if value is None:
        return "–"
    ends = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{value:.3f}{ends}"


# Two rounds side by side --------------------------------------------------------------------------


def _compare(ws: Workspace, person: Person) -> None:
    measured = sorted({number for number, _ in ws.ledger.measurements()})
    if len(measured) < 2:
        shell.empty(
            "Two measured rounds are needed.",
            "Then this compares their settings, their models (paired, on validation) and the cases "
            "that they see differently.",
        )
        return
    first, second, go = st.columns([2, 2, 2], vertical_alignment="bottom")
    before = first.selectbox("Before", measured, index=len(measured) - 2, key="c-before")
    after = second.selectbox("After", measured, index=len(measured) - 1, key="c-after")
    asked = go.button("Compare", width="stretch", disabled=before == after)
    chosen = (before, after, shell.version(ws))
    if asked:
        st.session_state["compared"] = chosen
    if st.session_state.get("compared") != chosen:
        st.caption("The first comparison scores the validation items with both models.")
        return
    with st.spinner("Scoring validation with both models…"):
        found = _compared(ws, *chosen)
    _differences(found)
    _settings(found)
    _changed(ws, found, hidden(ws, person))


@st.cache_data(show_spinner=False, max_entries=8)
def _compared(_ws: Workspace, before: int, after: int, version: tuple[str, int]) -> Comparison:
    return compare_rounds(_ws, before, after)


def _differences(found: Comparison) -> None:
    labels = f"{found.train_labels[0]:,} → {found.train_labels[1]:,} training labels"
    st.markdown(
        f"**Round {found.second} less round {found.first}**, {found.metric} on the same validation "
        f"items, paired by patient; {labels}."
    )
    rows = [("all findings (macro)", found.macro), *found.findings.items()]
    table = pd.DataFrame(
        [
            {"finding": n, "difference": d.value, "low": d.low, "high": d.high, "p": d.p, "n": d.n}
            for n, d in rows
        ]
    )
    title = f"Difference of {found.metric}, 95 %"
    st.altair_chart(forest(table, "difference", title), width="stretch")
    shown = pd.DataFrame(
        {
            "finding": table["finding"],
            "difference [95 %]": [
                "–" if d != d else f"{d:+.3f} [{low:+.3f}, {high:+.3f}]"
                for d, low, high in zip(
                    table["difference"], table["low"], table["high"], strict=True
                )
            ],
            "p": ["–" if p != p else f"{p:.3f}" for p in table["p"]],
            "items": table["n"],
        }
    )
    st.dataframe(shown, hide_index=True, width="stretch")


def _settings(found: Comparison) -> None:
    if not found.settings:
        st.caption("Both rounds ran with the same settings.")
        return
    rows = [
        {"setting": s.key, "before": _text(s.old), "after": _text(s.new)} for s in found.settings
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")


def _changed(ws: Workspace, found: Comparison, out: frozenset[str]) -> None:
    drawn = found.metric == METRICS["dice"]
    how = "masks came or went" if drawn else "answers flipped at the operating points"
    st.markdown(f"**Cases that changed most** · {found.flips:,} of {found.cases:,} {how}")
    few = [one for one in found.changed if one.item_id not in out][:18]
    captions = [
        f"<b>{one.finding}</b> {'⚑ flipped' if one.flipped else ''}<br>{'Dice ' if drawn else ''}"
        f"{one.before:.2f} → {one.after:.2f}, read {_label(one.label)}"
        for one in few
    ]
    grid(ws.images, [one.item_id for one in few], captions, link=True)


def _label(value: float) -> str:
    return "unknown" if value != value else "present" if value else "absent"


def _text(value: object) -> str:
    return "–" if value is None else str(value)


# The model in use ---------------------------------------------------------------------------------


def _models(ws: Workspace, person: Person) -> None:
    used = promotion.find_in_use(ws)
    if used is None:
        shell.empty("No model yet.", "A round trains one once there are labels to learn from.")
        return
    number, model = used
    st.markdown(f"**In use:** the {model.stage} of round {number}, `{model.id[:12]}`")
    others = [one for one in reversed(promotion.candidates(ws)) if one[1].id != model.id]
    if others:
        _promote(ws, person, others)
    decided = ws.ledger.promotions()
    if decided:
        _decisions(ws, person, decided)
    else:
        st.caption(
            "Nothing was promoted yet: the newest student is in use if it passed the gate against "
            "its own teacher, and else the teacher."
        )


def _promote(ws: Workspace, person: Person, others: list[promotion.Made]) -> None:
    pick, go = st.columns([4, 2], vertical_alignment="bottom")
    chosen = pick.selectbox(
        "Candidate",
        range(len(others)),
        format_func=lambda i: (
            f"{others[i][1].stage} of round {others[i][0]}, {others[i][1].id[:12]}"
        ),
        key="m-candidate",
    )
    candidate = others[chosen]
    key = (candidate[1].id, shell.version(ws))
    if go.button("Hold it against the model in use", width="stretch"):
        st.session_state["gated"] = key
    if st.session_state.get("gated") != key:
        return
    with st.spinner("Scoring validation with both models…"):
        verdict = promotion.gate(ws, candidate)
    (st.success if verdict.passes else st.warning)(shell.said(verdict.sentence))
    if not person.may_run:
        st.caption("Promoting needs the role engineer.")
        return
    why = ""
    if not verdict.passes:
        why = st.text_input("Why promote it all the same? It is kept with your name.", key="m-why")
    if st.button("Promote", type="primary", disabled=not verdict.passes and not why.strip()):
        promotion.promote(ws, candidate, person.name, why, override=not verdict.passes)
        st.rerun()


def _decisions(ws: Workspace, person: Person, decided: list[Promotion]) -> None:
    rows = [
        {
            "decision": d.kind,
            "model": f"{d.stage} of round {d.round}",
            "by": d.decided_by,
            "why": d.why,
        }
        for d in reversed(decided)
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    if person.may_run and st.button("Roll back to the model before"):
        promotion.roll_back(ws, person.name)
        st.rerun()


# Jobs ---------------------------------------------------------------------------------------------


def _jobs(ws: Workspace) -> None:
    history: list[JobState] = ws.ledger.jobs.history(50)
    if not history:
        shell.empty("No job yet.", "Rounds that are started here, and their logs, are listed here.")
        return
    rows = [
        {
            "job": j.job.id,
            "state": j.state,
            "round": str(j.round or "–"),
            "by": j.job.by,
            "asked": j.job.at,
            "took": show.duration((j.ended_at - j.started_at).total_seconds())
            if j.ended_at and j.started_at
            else "–",
            "message": j.message,
        }
        for j in history
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
    with st.expander("Log of the newest job"):
        st.code("\n".join(log_tail(ws.root, history[0].job.id)) or "(empty)", language=None)
