"""The scatter plot: what crosses to the browser, and what a reader does with it in Chromium."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.web.scatter import LABELED, NO_VALUE, PALETTE, POOL, QUEUE, Points, decode, encode
from tests.browser import FLAGS, chromium

ROOT = Path(__file__).parents[2]
places = arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32))


def groups(x, y, **more) -> Points:
    colour = np.arange(len(x)) % 2
    return Points(x, y, colour, palette=PALETTE[:2], legend=("No finding", "Effusion"), **more)


# ---- what crosses ----


@given(places)
def test_places_cross_bit_for_bit(x):
    y = x[::-1]
    header, columns = decode(encode(groups(x, y)))
    assert header["n"] == len(x)
    assert columns["x"].tobytes() == x.tobytes()
    assert columns["y"].tobytes() == y.tobytes()
    assert columns["colour"].tolist() == [i % 2 for i in range(len(x))]


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1) | st.just(np.nan)))
def test_values_cross_to_a_65535th_and_nan_is_no_value(values):
    x = np.zeros(len(values))
    header, columns = decode(encode(Points(x, x, values, ramp=(0, 30))))
    assert header["kind"] == "ramp"
    assert header["ramp"] == [0, 30]
    known = ~np.isnan(values)
    np.testing.assert_array_equal(columns["colour"] == NO_VALUE, ~known)
    back = columns["colour"][known] / (NO_VALUE - 1)
    np.testing.assert_allclose(back, values[known], atol=0.5 / (NO_VALUE - 1) + 1e-12)


def test_shapes_ids_and_star_cross():
    shape = np.array([POOL, QUEUE, LABELED])
    points = groups(np.arange(3.0), np.ones(3), shape=shape, ids=("a", "é", "c"), star=(1, 2))
    header, columns = decode(encode(points, key="map", height=400, turn=3, selected=(2,)))
    assert columns["shape"].tolist() == [POOL, QUEUE, LABELED]
    assert columns["ids"] == ["a", "é", "c"]
    assert (header["star"], header["key"], header["height"]) == ([1, 2], "map", 400)
    assert (header["turn"], header["selected"]) == (3, [2])


def test_a_star_without_a_place_and_coordinates_beyond_float32_are_left_to_the_browser():
    header, columns = decode(encode(groups(np.array([1e300]), np.zeros(1), star=(np.nan, 0))))
    assert header["star"] is None
    assert np.isinf(columns["x"]).all()


def test_digests_say_what_changed():
    x = np.arange(4.0)
    first = decode(encode(groups(x, x)))[0]
    same = decode(encode(groups(x.copy(), x), turn=1, selected=[2]))[0]
    moved = decode(encode(groups(x, -x)))[0]
    other = decode(encode(Points(x, x, x / 4)))[0]
    assert (same["place"], same["look"]) == (first["place"], first["look"])
    assert moved["place"] != first["place"]
    assert moved["look"] == first["look"]
    assert other["place"] == first["place"]
    assert other["look"] != first["look"]


def test_fifty_thousand_points_take_little_room():
    x = np.random.default_rng(0).normal(size=50_000)
    assert len(encode(groups(x, x))) < 510_000
    with_ids = groups(x, x, ids=[f"{i:010x}" for i in range(50_000)])
    assert len(encode(with_ids)) < 1_100_000


ONE = np.zeros(1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"y": np.zeros(2)}, r"y has shape \(2,\), x has 1 points"),
        ({"colour": np.array([1])}, "no index into a palette of 1"),
        ({"colour": np.array([1.5])}, r"outside \[0, 1\]"),
        ({"shape": np.array([5])}, "a shape is none of"),
        ({"legend": ()}, "1 colours for 0 names"),
        ({"ids": ("a", "b")}, "2 ids for 1 points"),
        ({"ids": ("a\nb",)}, "line break"),
        ({"colour": ONE, "ramp": (0, np.nan)}, "the ramp's ends"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, says):
    whole = {"x": ONE, "y": ONE, "colour": np.array([0]), "palette": ("#000000",), "legend": ("a",)}
    with pytest.raises(ValueError, match=says):
        Points(**whole | arguments)


# ---- in the browser ----

SCRIPT = """
import numpy as np
import streamlit as st
from app.web.scatter import LABELED, PALETTE, Points, scatter

case = st.query_params.get("case", "grid")
side = np.arange(10.0)
x, y = (a.ravel() for a in np.meshgrid(side, side))  # point 10 * row + column
if case == "none":
    x = y = np.zeros(0)
if case == "one":
    x = y = np.ones(1)
if case == "equal":
    x = y = np.full(50, 7.0)
if case == "unplaced":
    x = y = np.full(3, np.nan)
if case == "holes":
    x[:12] = np.nan
if case == "many":
    x, y = np.random.default_rng(0).normal(size=(2, 50_000))
colour = np.arange(len(x)) % 2
if case == "value":
    points = Points(x, y, x / 9, title="Score", ramp=(0, 30))
else:
    points = Points(x, y, colour, palette=PALETTE[:2], legend=("Even", "Odd <b>"), star=(4.5, 4.5))
if st.button("Again"):
    st.session_state.runs = st.session_state.get("runs", 0) + 1
if st.button("Wish"):
    st.session_state.wish = (3, 1)
if st.button("Unwish"):
    st.session_state.wish = ()
if st.checkbox("Shown", value=True):
    got = scatter(points, key="map", height=400, selected=st.session_state.get("wish", ()))
    st.text(f"got {got.count}: {list(got.indices)[:30]} of {len(got.indices)}")
st.text(f"runs {st.session_state.get('runs', 0)}")
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A Streamlit server with `SCRIPT`, on a free port."""
    folder = tmp_path_factory.mktemp("scatter")
    (folder / "page.py").write_text(SCRIPT, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"port": port, "address": "127.0.0.1", "headless": "true", "fileWatcherType": "none"}
    flags = [f"--server.{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(folder / "page.py"), *flags]
    command.append("--browser.gatherUsageStats=false")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)
    assert "Traceback" not in (folder / "log").read_text()


def wait_for(url: str) -> None:
    for _ in range(240):
        try:
            with urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"{url} did not answer")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def visit(address, browser):
    """Opens a case of the page; fails at the end where the console held an error."""
    errors = []
    pages = []

    def go(case: str = "grid", **context):
        page = browser.new_page(viewport={"width": 1200, "height": 900}, **context)
        pages.append(page)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(f"{address}/?case={case}")
        page.locator(".said").filter(has_text="point").wait_for(timeout=60_000)
        return page

    yield go
    for page in pages:
        page.close()
    assert errors == []


def inked(page) -> int:
    """How many pixels of the plot are not background."""
    return page.locator("canvas.points").evaluate("""canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const pixels = new Uint32Array(data.buffer);
        return pixels.filter((p) => p !== pixels[0]).length;
    }""")


def picture(page) -> str:
    """The plot's pixels."""
    return page.locator("canvas.points").evaluate("canvas => canvas.toDataURL()")


def place(page, x: float, y: float) -> tuple[float, float]:
    """Where (x, y) of the 10 × 10 grid lies on the screen, at the view that shows all."""
    box = page.locator("canvas.over").bounding_box()
    scale = min(box["width"] - 36, box["height"] - 36) / 9
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return middle[0] + (x - 4.5) * scale, middle[1] - (y - 4.5) * scale


def drag(page, *corners: tuple[float, float]) -> None:
    """Press at the first place of the grid, pass the others, let go at the last."""
    page.mouse.move(*place(page, *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*place(page, *corner), steps=6)
    page.mouse.up()


def got(page, text: str) -> None:
    page.get_by_text(text, exact=True).wait_for(timeout=20_000)


def again(page) -> None:
    """A rerun of the script, waited for."""
    runs = int(page.get_by_text(re.compile("^runs ")).inner_text().split()[1])
    page.get_by_role("button", name="Again").click()
    got(page, f"runs {runs + 1}")


def test_it_draws_and_says_how_many(visit):
    page = visit()
    assert page.locator(".said").inner_text() == "100 points"
    assert inked(page) > 1000
    legend = page.locator(".legend .entry").all_inner_texts()
    assert [entry.split() for entry in legend[:2]] == [["Even", "50"], ["Odd", "<b>", "50"]]


def test_a_box_brings_back_its_indices_and_escape_clears(visit):
    page = visit()
    page.keyboard.down("Shift")
    drag(page, (1.5, 2.5), (4.5, 4.5))
    page.keyboard.up("Shift")
    got(page, "got 6: [32, 33, 34, 42, 43, 44] of 6")
    assert page.locator(".said").inner_text() == "100 points · 6 selected"
    page.keyboard.press("Escape")
    got(page, "got 0: [] of 0")


def test_a_lasso_brings_back_what_lies_inside(visit):
    page = visit()
    page.get_by_role("button", name="Select with a lasso").click()
    # a triangle with its right angle at the lower left: x + y < 2.5
    drag(page, (-0.4, -0.4), (2.9, -0.4), (-0.4, 2.9), (-0.4, -0.3))
    got(page, "got 6: [0, 1, 2, 10, 11, 20] of 6")


def test_a_click_selects_one_and_with_control_adds(visit):
    page = visit()
    page.mouse.click(*place(page, 3, 0))
    got(page, "got 1: [3] of 1")
    page.keyboard.down("Control")
    page.mouse.click(*place(page, 5, 5))
    got(page, "got 2: [3, 55] of 2")
    page.mouse.click(*place(page, 3, 0))
    page.keyboard.up("Control")
    got(page, "got 1: [55] of 1")


def test_a_double_click_shows_all_and_selects_nothing(visit):
    page = visit()
    whole = inked(page)
    page.get_by_role("button", name="Zoom in").click(click_count=3)
    page.wait_for_timeout(300)
    page.mouse.dblclick(*place(page, 4.5, 4.5))
    page.wait_for_timeout(600)
    assert inked(page) == whole
    got(page, "got 0: [] of 0")


def test_the_view_and_the_selection_outlive_reruns_and_nothing_is_sent_again(visit):
    page = visit("many")
    sizes = []
    page.on("websocket", lambda ws: ws.on("framereceived", lambda data: sizes.append(len(data))))
    page.reload()
    page.locator(".said").filter(has_text="50,000").wait_for(timeout=60_000)
    got(page, "got 0: [] of 0")
    assert 500_000 < max(sizes) < 700_000
    page.mouse.move(*place(page, 4.5, 4.5))
    for _ in range(3):
        page.mouse.wheel(0, -200)
    page.get_by_role("button", name="Select with a box").click()
    drag(page, (3, 3), (6, 6))
    page.get_by_text(re.compile(r"^got \d{3,}: .* of 500$")).wait_for(timeout=20_000)
    said = page.locator(".said").inner_text()
    page.mouse.move(5, 5)
    page.wait_for_timeout(400)
    before = picture(page)
    sizes.clear()
    again(page)
    page.wait_for_timeout(400)
    assert sum(sizes) < 20_000
    assert page.locator(".said").inner_text() == said
    assert picture(page) == before


def test_zoom_is_about_the_pointer(visit):
    page = visit()
    page.mouse.move(*place(page, 7, 2))
    for _ in range(6):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(40)
    page.mouse.click(*place(page, 7, 2))
    got(page, "got 1: [27] of 1")


def test_a_legend_entry_hides_its_points_from_the_eye_and_the_box(visit):
    page = visit()
    whole = inked(page)
    entry = page.get_by_role("button", name="Odd <b>")
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    page.wait_for_timeout(200)
    assert inked(page) < 0.65 * whole
    page.keyboard.down("Shift")
    drag(page, (-0.4, -0.4), (4.4, 0.4))
    page.keyboard.up("Shift")
    got(page, "got 3: [0, 2, 4] of 3")


def test_what_the_page_wishes_is_shown_and_gives_way_to_the_reader(visit):
    page = visit()
    page.get_by_role("button", name="Wish", exact=True).click()
    got(page, "got 2: [1, 3] of 2")
    assert page.locator(".said").inner_text() == "100 points · 2 selected"
    page.mouse.click(*place(page, 5, 5))
    got(page, "got 1: [55] of 1")
    again(page)
    got(page, "got 1: [55] of 1")
    page.get_by_role("button", name="Unwish").click()
    got(page, "got 0: [] of 0")
    assert page.locator(".said").inner_text() == "100 points"


def test_a_plot_that_left_the_page_comes_back_as_it_was(visit):
    page = visit()
    page.mouse.click(*place(page, 5, 5))
    got(page, "got 1: [55] of 1")
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_timeout(300)
    before = picture(page)
    page.get_by_text("Shown", exact=True).click()
    page.locator(".said").wait_for(state="detached")
    page.get_by_text("Shown", exact=True).click()
    got(page, "got 1: [55] of 1")
    assert page.locator(".said").inner_text() == "100 points · 1 selected"
    assert picture(page) == before


def test_a_page_with_a_plot_runs_without_a_browser():
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_string(SCRIPT).run(timeout=30)
    assert not app.exception
    assert [text.value for text in app.text] == ["got 0: [] of 0", "runs 0"]


def test_hover_names_the_point(visit):
    page = visit("value")
    page.mouse.move(*place(page, 9, 0))
    assert page.locator(".tip").inner_text().split("\n") == ["Score: 30", "Pool · Point 10"]
    page.mouse.move(*place(page, 4.5, 4.5))
    page.locator(".tip").wait_for(state="hidden")


@pytest.mark.parametrize(
    ("case", "says", "empty"),
    [
        ("none", "0 points", "No points to show"),
        ("unplaced", "0 points · 3 without coordinates left out", "None of the points has"),
        ("holes", "88 points · 12 without coordinates left out", None),
        ("one", "1 point", None),
        ("equal", "50 points", None),
    ],
)
def test_cases_at_the_border(visit, case, says, empty):
    page = visit(case)
    assert page.locator(".said").inner_text() == says
    assert page.locator(".empty").is_visible() == bool(empty)
    if empty:
        assert empty in page.locator(".empty").inner_text()
    else:
        assert inked(page) > 5
    page.get_by_role("button", name="Zoom in").click()
    drag(page, (4, 4), (5, 5))


def test_one_point_can_be_selected(visit):
    page = visit("one")
    page.mouse.click(*place(page, 4.5, 4.5))
    got(page, "got 1: [0] of 1")


def test_the_theme_and_the_width_are_followed(visit):
    page = visit(color_scheme="dark")
    corner = "c => c.getContext('2d').getImageData(0, 0, 1, 1).data[0]"
    assert page.locator("canvas.points").evaluate(corner) < 60
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(800)
    assert page.locator("canvas.points").evaluate(corner) > 220
    page.set_viewport_size({"width": 600, "height": 900})
    page.wait_for_timeout(500)
    plot, root = (page.locator(s).bounding_box() for s in (".plot", ".scatter"))
    assert plot["width"] > 0.95 * root["width"]
    assert root["height"] == 400
    assert page.locator("canvas.points").evaluate("c => c.width") == round(plot["width"]) - 2
    assert inked(page) > 1000


def test_keys_pan_and_zoom(visit):
    page = visit()
    page.locator("canvas.points").focus()
    first = picture(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert picture(page) != first
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.wait_for_timeout(300)
    assert picture(page) == first
