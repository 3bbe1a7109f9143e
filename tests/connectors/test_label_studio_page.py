"""The labeling page: what it offers, what its results mean, and pressing its keys for real."""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from connectors.label_studio import page, projects
from connectors.label_studio.masks import decode_mask, encode_mask
from connectors.label_studio.page import hint_result, label_config, unasked_findings
from connectors.label_studio.results import Reading, ResultError, read_result
from ssl_core.records import Task

BINARY = Task("binary", ("Effusion",))
CLASSES = Task("multi_class", ("Normal", "Bacterial", "Viral"))
FINDINGS = Task("multi_label", ("Mass", "Nodule", "Effusion"))
MASKS = Task("segmentation", ("Pneumothorax", "Nodule"))
TASKS = (BINARY, CLASSES, FINDINGS, MASKS)
ODD = (
    '"quoted"',
    "<b>&amp;</b>",
    "🫁 lung",
    "cannot tell",
    "image unusable",
    "$image",
    "  a\n b ",
    "",
)
KINDS = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)


def tick(block: str, *words: object) -> dict:
    value = {"choices": list(words)}
    return {"from_name": block, "to_name": "image", "type": "choices", "value": value}


def paint(word: str, mask: np.ndarray, **other) -> dict:
    value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": [word]}
    size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
    head = {"from_name": "mask", "to_name": "image", "type": "brushlabels", "value": value}
    return head | size | other


def answers(task: Task, result: object) -> list[float]:
    reading = read_result(task, result)
    assert reading.outcome == "read"
    assert reading.reason == ""
    assert [finding for finding, _ in reading.answers] == list(task.findings)
    return [value for _, value in reading.answers]


def same(found: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(found, expected)


# The page -----------------------------------------------------------------------------------------


def choices_of(config: str) -> dict[str, list[tuple[str, str]]]:
    """Every block's words with their keys."""
    root = ElementTree.fromstring(config)
    blocks = [*root.iter("Choices"), *root.iter("BrushLabels")]
    return {b.get("name"): [(c.get("value"), c.get("hotkey", "")) for c in b] for b in blocks}


def keys_of(config: str) -> list[str]:
    pairs = (pair for block in choices_of(config).values() for pair in block)
    return [key for _, key in pairs if key and key != page._NO_KEY]


def test_each_finding_has_a_key_and_cannot_tell_the_key_beneath_it():
    assert choices_of(label_config(FINDINGS)) == {
        "f1": [("Mass", "1"), ("cannot tell", "q")],
        "f2": [("Nodule", "2"), ("cannot tell", "w")],
        "f3": [("Effusion", "3"), ("cannot tell", "e")],
        "unusable": [("image unusable", "n")],
        "reason": list(page.REASONS.items()),
    }


def test_a_binary_page_is_one_required_block():
    config = label_config(BINARY)
    assert choices_of(config)["answer"] == [
        ("Effusion", "1"),
        ("no Effusion", "2"),
        ("cannot tell", "3"),
        ("image unusable", "n"),
    ]
    (block,) = (b for b in ElementTree.fromstring(config).iter("Choices") if b.get("required"))
    assert block.get("name") == "answer"
    assert "unusable" in block.get("requiredMessage", "")


@pytest.mark.parametrize("kind", ["multi_class", "multi_label", "segmentation"])
@pytest.mark.parametrize("findings", [ODD, tuple(f"Finding {i}" for i in range(30))])
def test_odd_and_many_findings_make_a_well_formed_page(kind: str, findings: tuple[str, ...]):
    task = Task(kind, findings)
    config = label_config(task)
    names = page.shown_names(task)
    assert len(set(names)) == len(findings)
    assert not set(names) & {"cannot tell", "image unusable"}
    blocks = choices_of(config)
    shown = {word for block in blocks.values() for word, _ in block}
    assert set(names) <= shown
    names_of_tags = re.findall(r' name="(\w+)"', config)
    assert len(set(names_of_tags)) == len(names_of_tags)
    keys = keys_of(config)
    assert len(set(keys)) == len(keys)
    assert len(keys) >= min(len(findings), 18)


@KINDS
def test_no_key_is_one_of_label_studio_s_own(task: Task):
    many = Task(task.kind, tuple(f"F{i}" for i in range(1 if task is BINARY else 40)))
    own = {"h", "shift+1", "shift+2", "ctrl+enter", "ctrl+space", "v" if task is MASKS else "h"}
    own |= {"b", "e"} if task is MASKS else set()
    assert not own & set(keys_of(label_config(many)))


@KINDS
def test_the_page_has_zoom_brightness_and_contrast_and_no_field_but_the_image(task: Task):
    config = label_config(task)
    (image,) = ElementTree.fromstring(config).iter("Image")
    for control in ("zoom", "zoomControl", "brightnessControl", "contrastControl"):
        assert image.get(control) == "true"
    assert re.findall(r"\$\w+", config) == ["$image"]


@pytest.mark.parametrize("task", [*TASKS, Task("multi_label", ODD)])
def test_the_sdk_understands_the_page_and_its_hints(task: Task):
    from label_studio_sdk.label_interface import LabelInterface  # seconds to import

    interface = LabelInterface(label_config(task))
    interface.validate()
    first, *others = task.findings
    masks = {first: DISC == 1} if task is MASKS else {}
    said = {first: 1.0} | dict.fromkeys(others if task is MASKS else (), 0.0)
    hint = hint_result(task, said, masks)
    assert len(hint) == len(said)
    assert interface.validate_annotation({"result": hint})


# What readers submitted ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"), [("Effusion", 1.0), ("no Effusion", 0.0), ("cannot tell", math.nan)]
)
def test_binary_answers(word: str, value: float):
    same(answers(BINARY, [tick("answer", word)]), [value])


def test_multi_class_answers():
    same(answers(CLASSES, [tick("answer", "Bacterial")]), [0.0, 1.0, 0.0])
    same(answers(CLASSES, [tick("answer", "cannot tell")]), [math.nan] * 3)


def test_multi_label_answers_and_what_is_left_open_is_absent():
    result = [tick("f3", "Effusion"), tick("f1", "cannot tell")]
    same(answers(FINDINGS, result), [math.nan, 0.0, 1.0])
    for nothing in ([], None, [tick("f2")]):
        same(answers(FINDINGS, nothing), [0.0, 0.0, 0.0])


@pytest.mark.parametrize("task", [BINARY, CLASSES])
@pytest.mark.parametrize("nothing", [[], None, [tick("answer")]])
def test_one_answer_is_required_where_findings_exclude_each_other(task: Task, nothing: object):
    with pytest.raises(ResultError, match="no answer"):
        read_result(task, nothing)


@KINDS
def test_an_unusable_image_has_no_answers_and_maybe_a_reason(task: Task):
    block = "answer" if task in (BINARY, CLASSES) else "unusable"
    marked = tick(block, "image unusable")
    assert read_result(task, [marked]) == Reading("unusable", ())
    why = tick("reason", "exposure")
    assert read_result(task, [why, marked]) == Reading("unusable", (), reason="exposure")


def test_unusable_outweighs_findings_that_were_ticked_before():
    result = [tick("f1", "Mass"), tick("unusable", "image unusable")]
    assert read_result(FINDINGS, result).outcome == "unusable"


@pytest.mark.parametrize(
    ("result", "phrase"),
    [
        ("text", "the result is not a list"),
        ([3], "something that is not an answer"),
        ([tick("f9", "Mass")], "no block 'f9'; it has f1, f2, f3, unusable, reason"),
        ([tick("f1", "Massx")], "the choice 'Massx' is unknown; the page offers Mass, cannot tell"),
        ([tick("f1", "Nodule")], "the choice 'Nodule' is unknown"),
        ([tick("f1", 3)], "the choice of type int is unknown"),
        ([tick("f1", "Mass", "cannot tell")], "'Mass' and 'cannot tell' exclude each other"),
        ([tick("f1", "Mass"), tick("f1", "cannot tell")], "exclude each other"),
        ([tick("reason", "exposure")], "not marked unusable"),
        ([tick("f1", "Mass") | {"type": "rating"}], "'f1' holds something other than choices"),
        ([tick("f1", "Mass") | {"to_name": "text"}], "'f1' holds something other than choices"),
        ([tick("f1", "Mass") | {"value": None}], "'f1' holds no list of choices"),
        ([tick("f1", "x" * 5000)], "the choice 'xxx"),
    ],
)
def test_what_the_page_cannot_have_made_is_refused_with_a_phrase(result: object, phrase: str):
    with pytest.raises(ResultError, match=re.escape(phrase)) as caught:
        read_result(FINDINGS, result)
    assert len(str(caught.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(
    [
        "Mass",
        "Nodule",
        "Effusion",
        "Normal",
        "cannot tell",
        "image unusable",
        "other",
        "Pneumothorax",
    ]
)
NEARLY = st.fixed_dictionaries(
    {
        "from_name": st.sampled_from(["f1", "f2", "answer", "mask", "unusable", "reason"]) | JSON,
        "to_name": st.just("image") | JSON,
        "type": st.sampled_from(["choices", "brushlabels"]) | JSON,
        "value": st.fixed_dictionaries(
            {},
            optional={
                "choices": st.lists(WORDS | JSON, max_size=2) | JSON,
                "brushlabels": st.lists(WORDS | JSON, max_size=2) | JSON,
                "format": st.just("rle") | JSON,
                "rle": st.lists(st.integers(-1, 256), max_size=30) | JSON,
            },
        )
        | JSON,
    },
    optional={
        "original_width": st.integers(-1, 10**12) | JSON,
        "original_height": st.integers(-1, 10**12) | JSON,
        "image_rotation": st.just(0) | JSON,
    },
)


@given(st.sampled_from(TASKS), JSON | st.lists(NEARLY | JSON, max_size=4))
def test_any_json_is_a_reading_or_a_result_error(task: Task, result: object):
    with contextlib.suppress(ResultError):
        reading = read_result(task, result)
        if task is MASKS and reading.outcome == "read":
            assert 1 <= len(reading.answers) <= 2
            assert {f for f, _ in reading.masks} == {f for f, v in reading.answers if v == 1.0}
        else:
            assert len(reading.answers) == (len(task.findings) if reading.outcome == "read" else 0)


# Hints --------------------------------------------------------------------------------------------

VALUES = st.sampled_from([0.0, 1.0, math.nan])


@given(st.lists(VALUES, min_size=len(ODD), max_size=len(ODD)))
def test_a_multi_label_hint_reads_back(values: list[float]):
    task = Task("multi_label", ODD)
    same(answers(task, hint_result(task, dict(zip(ODD, values, strict=True)))), values)


@given(VALUES)
def test_a_binary_hint_reads_back(value: float):
    same(answers(BINARY, hint_result(BINARY, {"Effusion": value})), [value])


def test_a_multi_class_hint_reads_back():
    hint = hint_result(CLASSES, {"Normal": 0.0, "Bacterial": 0.0, "Viral": 1.0})
    same(answers(CLASSES, hint), [0.0, 0.0, 1.0])
    same(
        answers(CLASSES, hint_result(CLASSES, dict.fromkeys(CLASSES.findings, math.nan))),
        [math.nan] * 3,
    )
    assert hint_result(CLASSES, {}) == []


@pytest.mark.parametrize(
    ("task", "values"),
    [
        (MASKS, {"Edema": 0.0}),
        (FINDINGS, {"Edema": 1.0}),
        (CLASSES, {"Normal": 1.0, "Viral": 1.0}),
    ],
)
def test_hints_that_the_page_cannot_show_are_refused(task: Task, values: dict[str, float]):
    with pytest.raises(ValueError, match=r"\.$"):
        hint_result(task, values)


# Masks --------------------------------------------------------------------------------------------

DISC = (np.hypot(*np.mgrid[-20:21, -30:31]) < 12).astype(np.uint8)
SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
SMALL = SIDES.flatmap(
    lambda s: st.lists(st.booleans(), min_size=s[0] * s[1], max_size=s[0] * s[1]).map(
        lambda bits: np.array(bits, np.uint8).reshape(s)
    )
)


@given(SMALL)
def test_masks_survive_packing(mask: np.ndarray):
    height, width = mask.shape
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), width, height), mask)


@pytest.mark.parametrize("mask", [DISC, np.ones((300, 200), np.uint8), np.eye(7, dtype=np.uint8)])
def test_masks_agree_with_label_studio_s_own_packing(mask: np.ndarray):
    from label_studio_sdk.converter.brush import decode_rle, mask2rle  # seconds to import

    height, width = mask.shape
    theirs = decode_rle(encode_mask(mask)).reshape(height, width, 4)[:, :, 3] > 127
    np.testing.assert_array_equal(theirs, mask == 1)
    np.testing.assert_array_equal(decode_mask(mask2rle(mask * 255), width, height), mask)


def test_painted_findings_are_present_and_their_regions_are_one_mask():
    left, right = DISC.copy(), DISC.copy()
    left[:, 30:], right[:, :30] = 0, 0
    result = [paint("Nodule", left), paint("Nodule", right), tick("f1", "cannot tell")]
    same(answers(MASKS, result), [math.nan, 1.0])
    ((finding, mask),) = read_result(MASKS, result).masks
    assert finding == "Nodule"
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, DISC)


def test_absent_cannot_tell_and_not_looked_at_are_three_things():
    absent = read_result(MASKS, [tick("f1", "absent")])
    assert absent.answers == (("Pneumothorax", 0.0),)  # and nothing is known of the nodule
    both = read_result(MASKS, [tick("f2", "cannot tell"), tick("f1", "absent")])
    same([value for _, value in both.answers], [0.0, math.nan])
    assert absent.masks == both.masks == ()
    for nothing in ([], None, [tick("f1")], [paint("Nodule", np.zeros_like(DISC))]):
        with pytest.raises(ResultError, match="nothing is painted, and nothing marked 'absent'"):
            read_result(MASKS, nothing)
    assert read_result(MASKS, [tick("unusable", "image unusable")]).outcome == "unusable"


def test_a_region_erased_to_nothing_is_not_painted():
    reading = read_result(MASKS, [paint("Nodule", np.zeros_like(DISC)), tick("f2", "absent")])
    assert reading.answers == (("Nodule", 0.0),)
    assert reading.masks == ()


def test_what_an_edited_page_does_not_ask_about_is_left_out():
    page = label_config(MASKS).replace('<Label value="Nodule" hotkey="2"', '<Label value="Mass"')
    offered = projects.offered(page)
    unasked = unasked_findings(MASKS, offered)
    assert unasked == {"Nodule"}
    result = [tick("f1", "absent"), tick("f2", "absent")]
    assert read_result(MASKS, result, unasked).answers == (("Pneumothorax", 0.0),)


@given(st.data())
def test_a_hint_of_masks_reads_back(data: st.DataObject):
    mask = data.draw(SMALL)
    value = data.draw(VALUES)
    hint = hint_result(MASKS, {"Nodule": value, "Pneumothorax": 0.0}, {"Nodule": mask == 1})
    reading = read_result(MASKS, hint)
    told = dict(reading.answers)
    assert told.pop("Pneumothorax") == 0.0
    drawn = value == 1.0 and mask.any()
    if drawn:
        np.testing.assert_array_equal(dict(reading.masks)["Nodule"], mask)
    assert bool(reading.masks) == drawn
    same(list(told.values()), [value] if drawn or value != 1.0 else [])


@pytest.mark.parametrize(
    "other",
    [
        {"original_width": 62},
        {"original_width": 10_001},
        {"original_height": 10**12},
        {"original_height": 41.0},
        {"original_height": True},
        {"original_width": None},
        {"image_rotation": 90},
        {"value": {"brushlabels": ["Nodule"]}},
        {"value": {"brushlabels": ["Nodule"], "format": "rle", "rle": None}},
        {"value": {"brushlabels": ["Nodule"], "format": "rle", "rle": [256] * 40}},
    ],
)
def test_hostile_masks_are_refused(other: dict):
    with pytest.raises(ResultError, match="the mask of 'Nodule' is unreadable"):
        read_result(MASKS, [paint("Nodule", DISC, **other)])


@given(st.data())
def test_damaged_packing_is_a_mask_or_an_error(data: st.DataObject):
    rle = encode_mask(DISC)
    if data.draw(st.booleans()):
        rle = rle[: data.draw(st.integers(0, len(rle)))]
    else:
        rle[data.draw(st.integers(0, len(rle) - 1))] = data.draw(st.integers(0, 255))
    try:
        mask = decode_mask(rle, 61, 41)
    except ValueError:
        return
    assert mask.shape == (41, 61)
    assert set(np.unique(mask)) <= {0, 1}


def test_a_claim_of_the_largest_size_costs_nothing_when_the_bytes_are_few():
    with pytest.raises(ValueError, match="does not fit"):
        decode_mask(encode_mask(DISC), 10_000, 10_000)


@pytest.mark.parametrize(
    ("result", "phrase"),
    [
        ([paint("Nodule", DISC), paint("Nodule", DISC.T.copy())], "different sizes"),
        ([paint("Nodule", DISC), tick("f2", "cannot tell")], "painted and marked"),
        ([paint("Nodule", DISC), tick("f2", "absent")], "'Nodule' is painted and marked 'absent'"),
        ([tick("f1", "absent", "cannot tell")], "'absent' and 'cannot tell' exclude each other"),
        ([paint("Mass", DISC)], "the page offers Pneumothorax, Nodule"),
        ([paint("Nodule", DISC, value={"brushlabels": []})], "painted region names no finding"),
    ],
)
def test_masks_that_contradict_are_refused(result: list, phrase: str):
    with pytest.raises(ResultError, match=phrase):
        read_result(MASKS, result)


# The real page ------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SUBMIT = "[data-testid=bottombar-submit-button]"
NUMBER = ".lsf-current-task__task-id"
IMAGE = ".lsf-image img"
NEXT_CASE = """([at, number]) => {
    const place = document.querySelector(at);
    return place && place.innerText.split(/\\s/)[0] !== number;
}"""


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest):
    """The tests' Label Studio, or the one that the environment names as url,name,password,token."""
    if given := os.environ.get("READLOOP_TEST_LABEL_STUDIO"):
        return SimpleNamespace(
            **dict(zip(("url", "username", "password", "token"), given.split(","), strict=True))
        )
    return request.getfixturevalue("label_studio")


@pytest.fixture(scope="module")
def tab(server):
    """A signed-in browser tab of 1440 x 900."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    flags = "--no-sandbox --disable-dev-shm-usage --disable-gpu --no-first-run"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags.split())
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.goto(f"{server.url}/user/login/")
        tab.fill("input[name=email]", server.username)
        tab.fill("input[name=password]", server.password)
        tab.click("button[type=submit]")
        tab.wait_for_url(lambda url: "/user/login" not in url, wait_until="commit")
        yield tab
        browser.close()


def is_submit(response) -> bool:
    return response.request.method == "POST" and "/annotations" in response.url


class Reader:
    """A radiologist at the keyboard: `press` keys, `submit`, and see what the server was told."""

    def __init__(self, tab, api: httpx.Client, task: Task, cases: int) -> None:
        self.tab, self.api, self.task, self.left = tab, api, task, cases

    def case(self) -> int:
        return int(self.tab.inner_text(NUMBER).split()[0])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def submit(self, *keys: str) -> Reading:
        """Press, submit, see the next case come (or the last one go); what the server has now."""
        number = self.case()
        self.press(*keys)
        with self.tab.expect_response(is_submit):
            self.tab.keyboard.press("Control+Enter")
        if self.left > 1:
            self.tab.wait_for_function(NEXT_CASE, arg=[NUMBER, str(number)])
            self.tab.wait_for_selector(IMAGE)
        self.left -= 1
        (annotation,) = self.api.get(f"/api/tasks/{number}/annotations").json()
        assert annotation["lead_time"] > 0
        return read_result(self.task, annotation["result"])

    def answers(self, *keys: str) -> list[float]:
        reading = self.submit(*keys)
        assert reading.outcome == "read"
        return [value for _, value in reading.answers]


@contextlib.contextmanager
def reading(server, tab, task: Task, cases: int) -> Iterator[Reader]:
    """The label stream of a new project with a few cases, opened in the tab."""
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(picture, "PNG")
    image = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    head = {"Authorization": f"Token {server.token}"}
    with httpx.Client(base_url=server.url, headers=head, timeout=60) as api:
        body = {"title": f"page {secrets.token_hex(4)}", "label_config": label_config(task)}
        made = api.post("/api/projects", json=body)
        assert made.status_code == 201, made.text
        number = made.json()["id"]
        try:
            tasks = [{"data": {"image": image, "case": i}} for i in range(cases)]
            assert api.post(f"/api/projects/{number}/import", json=tasks).status_code == 201
            tab.goto(f"{server.url}/projects/{number}/data?labeling=1")
            tab.wait_for_selector(SUBMIT, timeout=60_000)
            tab.wait_for_selector(IMAGE)
            yield Reader(tab, api, task, cases)
        finally:
            api.delete(f"/api/projects/{number}")


def test_in_the_browser_a_multi_label_read(server, tab):
    task = Task("multi_label", (*(f"Finding {i}" for i in range(1, 14)), '<i>"Odd" & $image</i>'))
    with reading(server, tab, task, cases=4) as reader:
        expected = [0.0] * 14
        expected[0], expected[6], expected[10], expected[12] = 1.0, math.nan, 1.0, math.nan
        same(reader.answers("1", "u", "a", "c", "2", "2"), expected)
        expected = [0.0] * 14
        expected[2], expected[13] = math.nan, 1.0
        same(reader.answers("3", "e", "f"), expected)
        same(reader.answers(), [0.0] * 14)
        panel = tab.locator(".rl-panel")
        assert panel.evaluate("p => p.scrollHeight <= p.clientHeight")
        assert reader.submit("1", "n", "Shift+M") == Reading(
            "unusable", (), reason="motion or blur"
        )


def test_in_the_browser_a_binary_read_cannot_be_submitted_empty(server, tab):
    with reading(server, tab, BINARY, cases=4) as reader:
        first = reader.case()
        reader.press("Control+Enter")
        tab.get_by_text("Choose an answer, or mark the image unusable.").wait_for()
        tab.get_by_role("button", name="OK").click()
        assert reader.case() == first
        same(reader.answers("1"), [1.0])
        same(reader.answers("1", "2"), [0.0])
        tab.locator('input[name="no Effusion"]').click(force=True)  # keys work on after the mouse
        same(reader.answers("3"), [math.nan])
        assert reader.submit("n", "Shift+E") == Reading("unusable", (), reason="exposure")


def test_in_the_browser_a_multi_class_read(server, tab):
    with reading(server, tab, CLASSES, cases=3) as reader:
        same(reader.answers("2"), [0.0, 1.0, 0.0])
        same(reader.answers("1", "c"), [math.nan] * 3)
        assert reader.submit("1", "n") == Reading("unusable", ())


def test_in_the_browser_findings_are_painted(server, tab):
    with reading(server, tab, MASKS, cases=2) as reader:
        stage = tab.locator(".konvajs-content").bounding_box()
        side = stage["height"]  # of the square image, in the middle of the stage
        left, top = stage["x"] + (stage["width"] - side) / 2, stage["y"]

        def stroke(x: float, y: float) -> None:
            """From a point of the image, in shares of its side, a quarter to the right."""
            tab.mouse.move(left + x * side, top + y * side)
            tab.mouse.down()
            tab.mouse.move(left + (x + 0.25) * side, top + y * side, steps=5)
            tab.mouse.up()
            tab.wait_for_timeout(1000)  # the stroke becomes a region in the background

        tab.wait_for_timeout(1500)  # a key pressed while the page still loads is lost
        for key, name, x, y in (("1", "Pneumothorax", 0.25, 0.25), ("2", "Nodule", 0.5, 0.75)):
            reader.press(key)
            tab.locator(".lsf-label_selected", has_text=name).wait_for()
            stroke(x, y)
            reader.press("Escape")
        painted = reader.submit()
        same([value for _, value in painted.answers], [1.0, 1.0])
        (above, first), (below, second) = painted.masks
        assert (above, below) == MASKS.findings
        assert first.shape == second.shape == (64, 64)
        assert first[16, 24] == 1
        assert first[32:].sum() == 0
        assert second[48, 40] == 1
        assert second[:32].sum() == 0
        same(reader.answers("a", "Shift+S"), [0.0, math.nan])
