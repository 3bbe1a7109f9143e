"""The Rounds page as jobs see it: the form's refusals, jobs that live, failed and died."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta

import pytest

from ssl_core.history.jobs import JobLog
from ssl_core.presets import preset
from ssl_core.workspace import open_workspace
from tests import web, web_workspaces

NEWEST = web_workspaces.NEWEST
pytestmark = pytest.mark.usefixtures("no_label_studio")


def sent(root, **fields):
    """The form with these fields, sent."""
    at = web.page(root, "rounds").run()
    for key, value in fields.items():
        kind = {"recipe": at.text_area, "strategy": at.selectbox}.get(key, at.number_input)
        name = "recipe as in readloop.toml" if key == "recipe" else key
        kind(key=f"r-{name}").set_value(value)
    return web.checked(at.button(key="r-start").click().run())


BAD = {
    "a number": ({"seed": 2**40}, ["seed"]),
    "no TOML": ({"recipe": "name = "}, ["recipe"]),
    "unknown recipe": ({"recipe": 'name = "magic"'}, ["'magic' is unknown"]),
    "no recipe": ({"recipe": ""}, ["recipe"]),
    "unknown key": ({"recipe": 'name = "teacher_student"\nkeeep = 1'}, ["keeep"]),
    "no epochs": (
        {"recipe": 'name = "teacher_student"\n[teacher]\nepochs = 0'},
        ["teacher.epochs"],
    ),
    "two fields": (
        {"recipe": 'name = "teacher_student"\n[teacher]\nepochs = 0\nbatch_size = -1'},
        ["teacher.batch_size", "teacher.epochs"],
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_the_form_refuses_bad_values_by_field_and_starts_nothing(empty, bad):
    fields, words = BAD[bad]
    at = sent(empty, **fields)
    errors = web.errors(at)
    assert len(errors) == len(words), errors
    for word, error in zip(sorted(words), sorted(errors), strict=True):
        assert word in error
        assert "\n" not in error.strip()
    ledger = open_workspace(empty).ledger
    assert ledger.jobs.newest() is None
    assert ledger.rounds() == []


def past(root, seconds: float) -> JobLog:
    """The jobs of a workspace, by a clock that is slow."""
    ledger = open_workspace(root).ledger
    return JobLog(ledger._engine, lambda _: datetime.now(UTC) - timedelta(seconds=seconds))


def test_a_failed_job_says_why_and_the_form_is_there_again(copy):
    log = past(copy, 0)
    job, _ = log.ask("round", {}, "ann")
    log.start(job.id, "process 1 on here")
    log.finish(job.id, "failed", message="The disk is full: make room.")
    at = web.shown(copy, "rounds")
    assert web.errors(at) == ["Job 1 failed. The disk is full: make room."]
    assert at.button(key="r-start") is not None
    jobs = at.dataframe[-1].value.set_index("job")
    assert (jobs.loc[1, "state"], jobs.loc[1, "by"]) == ("failed", "ann")


def test_a_dead_job_is_told_and_its_round_can_go_on(copy):
    log = past(copy, 60)
    job, _ = log.ask("round", {}, "ann")
    log.start(job.id, "process 1 on here")
    web_workspaces.opened_round(copy)
    at = web.shown(copy, "rounds")
    (error,) = web.errors(at)
    assert error.startswith("Job 1 shows no sign of life since")
    assert "**Round 4 was interrupted.**" in web.text(at)
    assert any(b.label == "Go on with round 4" for b in at.button)
    assert "Round 4 is not finished" in web.text(at)
    reader = web.shown(copy, "rounds", role="reader")
    assert not any(b.label.startswith("Go on") for b in reader.button)


def test_a_job_that_lives_is_watched_and_can_be_cancelled_by_an_engineer(copy):
    log = past(copy, 0)
    job, _ = log.ask("round", {}, "ann")
    log.start(job.id, "process 1 on here")
    lead = web.shown(copy, "rounds", role="lead")
    assert not any(b.label == "Cancel" for b in lead.button)
    at = web.shown(copy, "rounds")
    text = web.text(at)
    assert "**Running** · job 1" in text
    assert "asked by ann · process 1 on here" in text
    assert not at.number_input  # no second form while one runs
    web.checked(at.button(key="job-cancel").click().run())
    assert log.state(1).state == "cancelling"


def test_another_recipe_can_be_chosen_and_its_settings_are_filled_in(empty):
    at = web.shown(empty, "rounds")
    at.selectbox(key="r-from").select("fixmatch, preset tiny").run()
    assert not at.exception
    text = at.text_area(key="r-recipe fixmatch, preset tiny").value
    assert tomllib.loads(text) == preset("tiny", "fixmatch")["recipe"]
