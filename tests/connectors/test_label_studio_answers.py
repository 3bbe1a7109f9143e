"""What a task from the server says, whatever it holds: a read, nothing, or one clear reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.label_studio.answers import Desk, read_task
from connectors.label_studio.page import hint_result
from connectors.label_studio.results import ResultError
from ssl_core.records import Outcome, Read, Task

TASK = Task("multi_label", ("effusion", "mass"))
DESK = Desk(7, "ana", TASK, {2: "ben"}, lambda item_id: f"ticket of {item_id}")
ASKED = {"external_id": "a", "ticket": "ticket of a"}
YES = hint_result(TASK, {"effusion": 1.0, "mass": math.nan})


def annotation(**more) -> dict:
    given = {"id": 3, "result": YES, "lead_time": 2.5, "was_cancelled": False, "completed_by": 1}
    return given | {"created_at": "2026-01-01", "updated_at": "2026-01-02"} | more


def task(*annotations, **more) -> dict:
    return {"id": 5, "data": ASKED, "updated_at": "2026-01-03", "annotations": annotations} | {
        "annotations": list(annotations),
        **more,
    }


def test_an_answer():
    assert read_task(DESK, task(annotation())) == Read(
        key="label_studio:task 5 of ana's project 7 annotation 3:2026-01-02",
        item_id="a",
        reader="ana",
        source="label_studio",
        answers=(("effusion", 1.0), ("mass", pytest.approx(math.nan, nan_ok=True))),
        seconds=2.5,
        read_at="2026-01-02",
        place="task 5 of ana's project 7",
    )


def test_projects_of_two_servers_with_one_number_are_two_places():
    here = replace(DESK, made="2026-01-01T00:00:00.5Z")
    there = replace(DESK, made="2026-01-01T00:00:00.6Z")
    one, other = read_task(here, task(annotation())), read_task(there, task(annotation()))
    assert one.key != other.key
    assert one.place != other.place
    assert one.key == f"label_studio:{one.place} annotation 3:2026-01-02"


def test_a_skip_holds_again_as_another_event_when_the_answer_after_it_is_deleted():
    skip = annotation(id=2, was_cancelled=True)
    first = read_task(DESK, task(skip))
    assert read_task(DESK, task(skip)).key == first.key
    assert read_task(DESK, task(skip, annotation())).outcome == "read"
    back = read_task(DESK, task(skip, updated_at="2026-01-04"))
    assert (back.outcome, back.key == first.key) == ("skipped", False)


def test_what_an_edited_page_does_not_ask_about_is_unknown():
    desk = replace(DESK, unasked=frozenset({"mass", "effusion"}))
    answers = dict(read_task(desk, task(annotation(result=YES[:1]))).answers)
    assert answers["effusion"] == 1.0  # ticked before the edit: no page can tick what it lacks
    assert math.isnan(answers["mass"])


def test_nothing_stands_there():
    read = read_task(DESK, task())
    assert (read.outcome, read.item_id) == ("withdrawn", "a")
    assert read.key == "label_studio:task 5 of ana's project 7:2026-01-03"


@pytest.mark.parametrize("data", [None, [], {}, {"external_id": "a"}, {"external_id": ["a"]}])
def test_a_task_of_somebody_elses(data):
    assert read_task(DESK, task(data=data)) is None
    assert read_task(DESK, task(annotation(was_cancelled=True), data=data)) is None
    with pytest.raises(ResultError, match="not put there by Readloop"):
        read_task(DESK, task(annotation(), data=data))


def test_the_newest_skip_holds_until_there_is_an_answer():
    skips = [annotation(id=n, was_cancelled=True, result=[{"strange": 1}]) for n in (3, 4)]
    read = read_task(DESK, task(*skips))
    assert (read.outcome, read.answers) == ("skipped", ())
    assert "annotation 4" in read.key
    assert read_task(DESK, task(*skips, annotation(id=9))).outcome == "read"


@pytest.mark.parametrize("who", [2, {"id": 2, "email": "ben@x"}])
def test_another_readers_account(who):
    with pytest.raises(ResultError, match=r"ben answered it .* for ana is to read it"):
        read_task(DESK, task(annotation(completed_by=who)))
    with pytest.raises(ResultError, match="ben answered"):
        read_task(DESK, task(annotation(completed_by=who, was_cancelled=True)))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (3, 3.0),
        (0, 0.0),
        (-0.1, None),
        ("3", None),
        (True, None),
        (math.nan, None),
        (math.inf, None),
        (10**400, None),
        (None, None),
        ([1], None),
    ],
)
def test_lengths(given, kept):
    assert read_task(DESK, task(annotation(lead_time=given))).seconds == kept


@pytest.mark.parametrize("result", [{"choices": 1}, "x", 3, ["effusion"], [None], [[]], [{}]])
def test_results_that_are_none_name_the_annotation(result):
    with pytest.raises(ResultError, match="annotation 3 there, or delete it"):
        read_task(DESK, task(annotation(result=result)))


@pytest.mark.parametrize("result", [None, []])
def test_an_empty_result_says_nothing_is_there(result):
    answers = read_task(DESK, task(annotation(result=result))).answers
    assert answers == (("effusion", 0.0), ("mass", 0.0))


@pytest.mark.parametrize("held", [3, "x", {"id": 1}, [3], [None]])
def test_annotations_that_are_none(held):
    with pytest.raises(ResultError, match="cannot be understood"):
        read_task(DESK, {**task(), "annotations": held})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
regions = st.fixed_dictionaries(
    {},
    optional={
        "from_name": st.sampled_from(["f1", "f2", "f3", "unusable", "reason", "image"])
        | json_values,
        "to_name": st.just("image") | json_values,
        "type": st.just("choices") | json_values,
        "value": st.fixed_dictionaries(
            {
                "choices": st.lists(
                    st.sampled_from(["effusion", "mass", "cannot tell", "image unusable", "other"])
                    | json_values,
                    max_size=3,
                )
            }
        )
        | json_values,
    },
)
annotations = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers() | json_values,
        "result": st.lists(regions, max_size=3) | json_values,
        "lead_time": st.floats() | json_values,
        "was_cancelled": st.booleans() | json_values,
        "completed_by": st.integers(0, 3) | st.fixed_dictionaries({"id": st.integers(0, 3)}),
        "created_at": st.text(max_size=5) | json_values,
        "updated_at": st.text(max_size=5) | json_values,
    },
)
hostile = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(),
        "data": st.just(ASKED) | json_values,
        "updated_at": json_values,
        "annotations": st.lists(annotations | json_values, max_size=3) | json_values,
    },
)


@given(task=hostile)
def test_any_task_is_a_read_or_nothing_or_one_sentence(task):
    try:
        read = read_task(DESK, task)
    except ResultError as error:
        reason = str(error)
    else:
        reason = ""
        assert read is None or is_sound(read)
    assert "\n" not in reason
    assert len(reason) < 500


def is_sound(read: Read) -> bool:
    assert (read.item_id, read.reader, read.source) == ("a", "ana", "label_studio")
    assert read.outcome in get_args(Outcome)
    assert all(value in (0.0, 1.0) or math.isnan(value) for _, value in read.answers)
    assert bool(read.answers) == (read.outcome == "read")
    assert read.seconds is None or (read.seconds >= 0 and math.isfinite(read.seconds))
    assert isinstance(read.read_at, str | None)
    return True


@given(results=st.lists(regions, max_size=3), skipped=st.booleans())
def test_what_is_taken_was_on_the_page(results, skipped):
    try:
        read = read_task(DESK, task(annotation(result=results, was_cancelled=skipped)))
    except ResultError:
        return
    assert read.outcome in (("skipped",) if skipped else ("read", "unusable"))
    told = dict(read.answers)
    for region in results if told else ():
        block, words = region["from_name"], region["value"]["choices"]
        finding = {"f1": "effusion", "f2": "mass"}.get(block)
        for word in words if finding else ():
            assert told[finding] == 1.0 if word == finding else math.isnan(told[finding])
