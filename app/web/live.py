"""A job while it runs: stage, curves, time left, log, cancel; looked at every 2 seconds."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd
import streamlit as st

from app import show
from app.jobs import cancel, log_tail
from app.web import shell
from app.web.access import Person
from app.web.charts import COLOURS, INK
from ssl_core.job_progress import Curve, Step, round_seconds_left
from ssl_core.job_states import JobState
from ssl_core.workspace import Workspace

EVERY = 2.0  # seconds
LINES = 12  # of the log


def notice(newest: JobState | None) -> None:
    """Say how the newest job ended, if it did not end well."""
    if newest is None or newest.lives:
        return
    if newest.state == "finished":
        if st.session_state.get("watched") == newest.job.id:
            st.success(
                f"Round {newest.round} finished. Its cases are on the page Reading.",
                icon=":material/check_circle:",
            )
        return
    if newest.state == "dead":
        st.error(
            f"Job {newest.job.id} shows no sign of life since {newest.seen_at:%H:%M:%S} UTC: its "
            "process was killed or its machine is away. Start again: the round goes on where it "
            "stopped.",
            icon=":material/heart_broken:",
        )
    elif newest.state == "failed":
        st.error(
            f"Job {newest.job.id} failed. {shell.plain(newest.message)}", icon=":material/error:"
        )
    else:
        st.info(
            f"Job {newest.job.id} was cancelled. {shell.plain(newest.message)}",
            icon=":material/cancel:",
        )


@st.fragment(run_every=EVERY)
def watch(ws: Workspace, person: Person) -> None:
    """Show the job that lives; when it is over, the whole page is shown anew."""
    with shell.sentences():  # a fragment runs without its page, and so without the page's own
        found = ws.ledger.jobs.newest()
        if found is None or not found.lives:
            st.rerun(scope="app")
            return
        with st.container(border=True, key="job"):
            _head(ws, found, person)
            _step(ws, found)
            _curves(ws.ledger.jobs.curves(found.job.id), ws.ledger.task.metric_name)
            with st.expander("Log"):
                tail = "\n".join(log_tail(ws.root, found.job.id, LINES))
                st.code(tail or "(empty)", language=None)


def _head(ws: Workspace, found: JobState, person: Person) -> None:
    what, stop = st.columns([5, 1], vertical_alignment="center")
    since = (found.now - (found.started_at or found.job.at)).total_seconds()
    state = {"asked": "Starting", "running": "Running", "cancelling": "Stopping"}[found.state]
    resumes = f", goes on with job {found.job.resumes}" if found.job.resumes else ""
    what.markdown(
        f"**{state}** · job {found.job.id}{resumes} · {show.duration(since)} · asked by "
        f"{shell.plain(found.job.by)} · {shell.plain(found.place) or 'no process yet'}"
    )
    if person.may_run and stop.button(
        "Cancel", disabled=found.state == "cancelling", width="stretch", key="job-cancel"
    ):
        cancel(ws, person.name)
        st.rerun()  # of the app: a click may come with a run of the whole page


def _step(ws: Workspace, found: JobState) -> None:
    step = found.step
    if step is None:
        st.progress(0.0, text="waiting for its first report")
        return
    share = min(step.done / step.total, 1.0) if step.total else 0.0
    st.progress(share, text=_line(ws, step))


def _line(ws: Workspace, step: Step) -> str:
    parts = [step.part if step.part == step.stage else f"{step.part}: {step.stage}"]
    if step.total:
        parts.append(f"{step.done:,} of {step.total:,}")
    if step.epochs:
        parts.append(f"epoch {step.epoch} of at most {step.epochs}")
    if not math.isnan(step.auroc):
        parts.append(f"validation {ws.ledger.task.metric_name} {step.auroc:.3f}")
    if step.seconds_left is not None:
        parts.append(f"this step about {show.duration(step.seconds_left)} more")
    left = _round_left(ws, step)
    if left is not None:
        parts.append(f"the round about {show.duration(left)}")
    return " · ".join(parts)


def _round_left(ws: Workspace, step: Step) -> float | None:
    finished = [r.number for r in ws.ledger.rounds() if ws.ledger.finished(r.number)]
    return round_seconds_left(step, ws.ledger.stages(finished[-1])) if finished else None


def _curves(curves: list[Curve], metric: str) -> None:
    measured = f"validation {metric}"
    rows = [
        {"stage": c.stage, "epoch": p.epoch, "training loss": p.loss, measured: p.auroc}
        for c in curves
        for p in c.points
    ]
    if not rows:
        st.caption("Curves appear with the first epoch.")
        return
    table = pd.DataFrame(rows)
    for column, figure in zip(st.columns(2), ("training loss", measured), strict=True):
        here = table.dropna(subset=[figure])
        with column:
            st.altair_chart(_curve(here, figure), width="stretch", height=260)


def _curve(rows: pd.DataFrame, figure: str) -> alt.Chart:
    stages = list(dict.fromkeys(rows["stage"]))
    palette = [COLOURS["supervised"], COLOURS["student"], COLOURS["intermediate"], "#009E73"]
    chart = alt.Chart(rows).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18))
    return chart.encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y(f"{figure}:Q", scale=alt.Scale(zero=False)),
        color=alt.Color(
            "stage:N",
            title=None,
            scale=alt.Scale(domain=stages, range=[palette[i % 4] for i in range(len(stages))]),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=["stage", "epoch", alt.Tooltip(f"{figure}:Q", format=".4f")],
    ).configure_axis(gridColor=INK, gridOpacity=0.18)
