"""`readloop report`: every chapter against the ledger, hostile names, any state of a workspace."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.cli import run
from app.imported import keep_import, read_import
from app.report.build import CHAPTERS, report
from app.report.curve_svg import Drawn, curve_svg
from app.report.scene import People, readers_of
from ssl_core.auditing import audit
from ssl_core.auditing.pool_reads import prevalence
from ssl_core.claims.claim import claim
from ssl_core.claims.curve import label_cost
from ssl_core.claims.promotion import find_in_use
from ssl_core.claims.proof import proof, sentences
from ssl_core.history.dates import dates
from ssl_core.intake import Report as ImportReport
from ssl_core.records import Assignment, Measurement, Model, Promotion, Read, Task
from ssl_core.tell import interval
from ssl_core.workspace import CONFIG_FILE, Workspace, open_workspace
from tests import toy, web, web_workspaces
from tests.rounds_by_hand import add, auroc, ids, made, model, open_round, take, trained

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
NAN = float("nan")
VOID = {"meta", "br"}


class Page(HTMLParser):
    """The page as a browser reads it: chapters, rows of tables, and all that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.refers: list[str] = []
        self.ids: list[str] = []
        self.chapters: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.chapter = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        told = dict(attrs)
        assert len(told) == len(attrs), (tag, attrs)
        self.refers += [told[key] for key in ("href", "src", "data", "action") if key in told]
        assert not [key for key in told if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if "id" in told:
            self.ids.append(told["id"])
        if tag == "section":
            self.chapter = told["id"]
            self.chapters[self.chapter] = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open  # elsewhere HTML knows none

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.chapter = ""

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.chapter:
            self.chapters[self.chapter] += data


def told(ws: Workspace, **more) -> tuple[str, Page]:
    text = report(ws, NOW, **more)
    page = Page(text)
    assert list(page.chapters) == list(CHAPTERS)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form", "base"})
    assert page.refers == [f"#{key}" for key in CHAPTERS]
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"https?:|url\(|@import", text)
    assert str(ws.root) not in text
    assert len(text.encode()) < 2_000_000
    assert not [one.id for one in ws.ledger.items() if one.id in text]
    assert not re.search(r">[^<]*\bnan\b[^<]*<", text)
    return text, page


def row(page: Page, *first: str) -> list[str]:
    """The row that begins with these cells."""
    found = [r for r in page.rows if tuple(r[: len(first)]) == first]
    assert found, first
    return found[0]


@pytest.fixture(scope="module")
def page(read) -> Page:
    return told(open_workspace(read))[1]


# A workspace that people read ---------------------------------------------------------------------


def test_what_the_workspace_is(page, ws):
    items = ws.ledger.items()
    text = page.chapters["workspace"]
    assert f"{ws.root.name} holds {len(items)} items of 36 patients" in text
    assert "3 findings: Spot, Bar, Rare" in text
    assert row(page, "Configuration")[1] == ws.config.digest()
    assert row(page, "Imported")[1] == dates(ws.ledger).imported[:16].replace("T", " ")
    assert row(page, "Rounds")[1].startswith("3; the last one ended ")


def test_the_claims_are_those_of_the_pages(page, ws):
    curve, used = label_cost(ws), find_in_use(ws)
    said = claim(curve, (used[0], used[1].stage))
    text = page.chapters["claims"]
    assert said.text.partition(" Not known:")[0] in text
    for sentence in sentences(proof(ws, curve=curve)):
        assert sentence in text
    assert row(page, "AUROC on the vault")[1] == interval(said.point.auroc)
    assert row(page, "Training labels behind it")[1] == f"{said.point.labels}"
    assert row(page, "Labels to measure it")[1] == "36"
    assert row(page, "go on or stop")[1] == "not known"
    # The shadow control alone is there: nothing is said of a replay that nobody ran.
    assert "The shadow control, which learned from random labels alone," in text
    assert "not finished" not in text
    assert row(page, "Labels that chance needed for it")[2].startswith("shadow control, 1 seed")


def test_the_curve_names_lines_by_origin_and_gives_every_number(page, ws):
    for line in label_cost(ws).lines:
        for point in line.points if line.finding == "macro" else ():
            name = {"control": "shadow control", "supervised": "teacher (labels alone)"}
            first = name.get(line.role, "student before fine-tuning")
            first = "student" if line.role == "student" else first
            cells = row(page, first, f"{point.round}")
            assert (cells[2], cells[4]) == (f"{point.labels}", interval(point.auroc))
    assert "svg" in page.tags
    assert "random control" not in " ".join(page.chapters.values())
    assert row(page, "Rare", "student")[3] == "not known"


def test_the_data_card_counts_what_the_ledger_holds(page, ws):
    counts = ws.ledger.label_counts()
    now = label_cost(ws).now
    for split in ("train", "validation", "vault"):
        cost = getattr(now, split)
        items = ws.ledger.items(split)
        assert row(page, split)[1:4] == [
            f"{len(items)}",
            f"{len({i.group for i in items})}",
            f"{counts[split]}",
        ]
        assert row(page, split)[5:] == [f"{cost.reads}", f"{cost.hours:.2f}"]
    share = prevalence(ws.ledger)["Spot"]
    expected = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
    assert expected in [r[1] for r in page.rows if r[0] == "Spot"]
    assert row(page, "blurred")[1] == "2"
    text = page.chapters["data"]
    assert "1 image unusable" in text
    assert "No patient is in two splits" in text
    assert "How many duplicates the import merged is not known" in text  # made by hand


def test_the_audit_is_that_of_the_newest_round(page, ws):
    for kept in audit.kept(ws, web_workspaces.NEWEST):
        found = [r for r in page.rows if r[:2] == [kept.finding, kept.sign]]
        assert found[0][2] == f"{kept.kept} of {kept.pool}"
        assert found[0][7] == f"{kept.precision.n}"
    assert "No alarm stands" in page.chapters["audit"]


def test_readers_and_lineage(page, ws):
    assert row(page, "ana")[1:4] == ["51", "1", "1"]
    assert row(page, "chief (adjudicator)")[6] == "0.50"  # 30 s, once: no interval
    assert row(page, "Bar", "ana and ben")[5] == "22"
    for number, made_ in ws.ledger.models(control=True):
        assert row(page, f"{number}", made_.stage)[2] == made_.id[:12]
    shadow = row(page, "3", "control student")
    assert shadow[5] == "random ones alone"
    student = row(page, "2", "student")
    assert student[4] == "labels, begun with the weights of intermediate"
    assert student[6] == "in use"
    decision = next(r for r in page.rows if "override" in r)
    assert decision[4:6] == ["eva", "it is steadier"]
    assert "does not exclude a loss" in decision[6]
    looks = len(ws.ledger.vault_looks())
    for key in ("lineage", "reading"):
        assert f"has looked into the vault {looks} times" in page.chapters[key]


def test_anonymous_names_nobody(ws):
    text, page = told(ws, anonymous=True)
    words = set(re.findall(r"\w+", unescape(re.sub(r"<[^>]+>", " ", text))))
    assert words.isdisjoint({"ana", "ben", "chief", "eva"})
    numbered = {f"reader {k}" for k in (1, 2, 3)}
    assert numbered >= {r[0].removesuffix(" (adjudicator)") for r in page.rows if "reader " in r[0]}
    assert "person 1" in next(r for r in page.rows if "override" in r)
    again, _ = told(ws, anonymous=True)
    assert again == text


def test_names_that_were_typed_are_replaced_as_whole_words():
    people = People({"reader": "reader 2", "Ana": "reader 1"})
    assert people.clean("ana's reader; Anatomy") == "reader 1's reader 2; Anatomy"
    assert People({}).clean("Ana") == "Ana"


def test_it_writes_nothing_and_looks_at_no_vault_label(copy, tmp_path):
    def state():
        files = sorted(p for p in copy.rglob("*") if p.is_file() and "ledger.db" not in p.name)
        return [(p, p.stat().st_mtime_ns) for p in files]

    for kept in (copy / "probabilities").glob("*"):
        kept.unlink()  # what pages have computed: a report computes none of it
    before, rows = state(), toy.history(copy)
    assert run(["report", str(copy), "--out", str(tmp_path / "out" / "r.html")]) == 0
    assert (state(), toy.history(copy)) == (before, rows)
    assert "Report on w" in (tmp_path / "out" / "r.html").read_text(encoding="utf-8")


# Other states -------------------------------------------------------------------------------------


def test_a_fresh_workspace_says_what_is_not_known(empty):
    _, page = told(open_workspace(empty))
    assert "Nothing is measured yet" in page.chapters["claims"]
    assert "There is no curve yet" in page.chapters["curve"]
    assert "svg" not in page.tags
    assert "No label of train or validation has come in yet." in page.chapters["data"]
    assert "No round has made pseudo-labels yet" in page.chapters["audit"]
    assert (
        "Nothing has been read yet; named as readers: ana, ben, chief" in page.chapters["readers"]
    )
    assert "No round has run yet" in page.chapters["lineage"]
    assert [r[1] for r in page.rows if r[0] in ("Spot", "Bar", "Rare")] == ["not known"] * 3


def test_a_cold_start_has_rounds_and_no_model(asked):
    _, page = told(open_workspace(asked))
    assert row(page, "1")[-1] == "trained nothing"
    assert "No round has trained a model yet." in page.chapters["lineage"]
    assert "No model is in use" in page.chapters["lineage"]


def test_a_desk_where_somebody_reads_again_is_of_the_same_person():
    people = People({"ana": "reader 1"})
    assert people.name("ana (again)") == "reader 1 (again)"
    assert people.clean("ask ana (again)") == "ask reader 1 (again)"
    assert People({}).name("ana (again)") == "ana (again)"


def test_an_archive_has_no_readers(tmp_path):
    ws = open_workspace(toy.make(tmp_path / "w", toy.TASKS["multi_class"]))
    _, page = told(ws)
    assert "a simulated reader answers" in page.chapters["readers"]
    assert "exactly one of them holds" in page.chapters["workspace"]


def test_a_replay_is_told_apart_from_the_shadow_control(tmp_path):
    root = toy.make(tmp_path / "w", cost={"per_hour": 90.0, "currency": "EUR"})
    asked = ["--budgets", "8,16", "--strategies", "margin,random", "--seeds", "0,1"]
    assert run(["replay", str(root), *asked]) == 0
    ws = open_workspace(root)
    (one,) = proof(ws).replayed
    _, page = told(ws, target=0.6)
    assert row(page, "8", interval(one.auroc[0]))[2] == interval(one.control_auroc[0])
    assert row(page, "random arm of the replay", "2")[2] == "8"
    assert row(page, "student, replay of margin", "3")[2] == "16"
    assert row(page, "replay of margin: money spared")[1:] == [
        "not known",
        "no price an hour, or no timed read",
    ]
    assert row(page, "replay of margin: labels to an AUROC of .600")
    # two strategies, two seeds, two rounds that measure and then compare
    assert "0 times, and its replays 16 times." in page.chapters["lineage"]


# Hostile names ------------------------------------------------------------------------------------

EVIL = '<script>alert("x")</script>'
NASTY = ("</title><b>Bold", "A & B `rm -rf`", EVIL)


@pytest.fixture
def hostile(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setitem(toy.TASKS, "hostile", Task("multi_label", NASTY))
    ws = made(tmp_path / "w <i>&", f"sqlite:///{tmp_path / 'l.db'}", "hostile")
    names = ("<img src=x onerror=alert(1)>", 'b"en')
    item, other = ids(ws, "train")[:2]
    ws.ledger.reading.assign([Assignment(i, n, 0, 0) for i in (item, other) for n in names])
    answers = tuple((finding, 1.0) for finding in NASTY)
    take(ws.ledger, *(Read(f"k{n}", item, n, "label_studio", answers=answers) for n in names))
    why = "<svg onload=alert(2)>"
    take(ws.ledger, Read("u", other, names[0], "label_studio", "unusable", reason=why))
    trained(ws, 1, t1=0.7, s1=0.8)
    decision = Promotion(
        "override", 1, "s1", "student", 1, "t1", "teacher", EVIL, f"{EVIL} said {names[1]}", ""
    )
    ws.ledger.add_promotion(decision, 0)
    return ws


def test_hostile_names_are_text(hostile):
    text, page = told(hostile)
    for name in (*NASTY, "<img src=x onerror=alert(1)>", 'b"en', "<svg onload=alert(2)>"):
        assert name.replace("`", "") in "".join(page.chapters.values()).replace("`", "")
    assert "<script" not in text
    assert "<img" not in text
    assert "Report on w &lt;i&gt;&amp;" in text
    assert row(page, "<svg onload=alert(2)>")[1] == "1"
    _, quiet = told(hostile, anonymous=True)
    assert "said reader" in quiet.chapters["lineage"]
    assert 'b"en' not in "".join(quiet.chapters.values())
    assert len(readers_of(hostile)) == 3  # two who read, and the one that the settings name


def test_a_model_that_the_ledger_lost_is_said_and_the_rest_stands(hostile):
    lost = Promotion("override", 1, "gone", "student", 1, "s1", "student", "eva", "so", "")
    hostile.ledger.add_promotion(lost, 1)
    _, page = told(hostile)
    assert "This cannot be told: The ledger of it does not hold" in page.chapters["claims"]
    assert "AUROC" in page.chapters["curve"]


def test_a_setting_that_holds_a_folder_is_named_without_its_value(tmp_path):
    ws = made(tmp_path / "w", f"sqlite:///{tmp_path / 'l.db'}")
    trained(ws, 1, t1=0.7, s1=0.8)
    other = ws.config.changed(model={"weights": "/secret/place.pth"}, selection={"query_size": 9})
    open_round(ws.ledger, 2, other.to_json())
    text, page = told(ws)
    assert "/secret" not in text
    assert "model.weights changed" in page.chapters["lineage"]
    assert "selection.query_size 8 → 9" in page.chapters["lineage"]
    assert row(page, "2")[2] == "open"


def test_a_shadow_control_without_a_replay_is_what_chance_needed(tmp_path):
    ws = made(tmp_path / "w", f"sqlite:///{tmp_path / 'l.db'}")
    open_round(ws.ledger, 1, ws.config.to_json())
    student = model("s1")
    add(ws.ledger, 1, "student", models=[student])
    shadow = Measurement("c1", "control", "vault", "macro", "auroc", 0.9, 0.8, 0.95, 24)
    detail = {"thresholds": {"student": [0.5]}, "control": {"labels": 12, "against": []}}
    rows = [auroc(student, "vault", 0.8), shadow]
    add(ws.ledger, 1, "control student", models=[Model("c1", "control student", "n", "p")])
    add(ws.ledger, 1, "evaluate", detail=detail, measurements=rows)
    ws.ledger.finish_round(1, json.dumps({}))
    found = claim(label_cost(ws))
    assert (found.control.origin, found.control.labels, found.control.seeds) == ("rounds", 12, 1)
    assert "needed at most 12 labels to get there" in found.text
    assert not [one for one in found.unknown if "random choice" in one]
    _, page = told(ws)
    assert row(page, "Labels that chance needed for it")[1] == "12 or fewer"
    assert row(page, "shadow control", "1")[2] == "12"


@pytest.mark.usefixtures("no_label_studio")
def test_the_overview_offers_it(read, empty):
    for root in (read, empty):
        at = web.shown(root, "overview", role="lead")
        (button,) = at.get("download_button")
        assert button.proto.label == "Download report"


# The command, the drawing, the note of the import -------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target", "95"], "give an AUROC between 0 and 1"),
        (["--out", "."], "give the name of a file that ends in .html"),
        (["--out", "x.pdf"], "give the name of a file that ends in .html"),
    ],
)
def test_bad_options_are_one_sentence(empty, capsys, more, said):
    assert run(["report", str(empty), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_out_it_is_written_where_one_stands(empty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(empty), "--anonymous"]) == 0
    (file,) = Path().iterdir()
    assert file.name == "w-report.html"
    assert "ana" not in re.findall(r"\w+", file.read_text(encoding="utf-8"))


def test_a_drawing_stands_inside_its_frame():
    points = ((10.0, 0.5, 0.4, 0.6), (20.0, NAN, NAN, NAN), (40.0, 0.9, 0.8, 1.07))
    svg = curve_svg([Drawn("<us>", False, points), Drawn("chance", True, points[:1])], "T")
    circles = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert len(circles) == 3  # what is not known is not drawn
    top, bottom = circles[1], circles[0]
    low, high = re.findall(r'class="bar"[^>]* y1="([\d.]+)" y2="([\d.]+)"', svg)[1]
    assert float(high) < top < float(low) < bottom
    one = float(re.findall(r'class="grid"[^>]* y1="([\d.]+)"', svg)[-1])
    assert float(high) == one  # an interval over seeds may pass 1, the drawing may not
    assert "&lt;us&gt;" in svg
    assert curve_svg([Drawn("none", False, points[1:2])], "T") == ""


def test_what_an_import_merged_is_kept_for_the_report(tmp_path):
    root = toy.make(tmp_path / "w")
    keep_import(root, ImportReport(80, (), 8, (), (), ()))
    assert read_import(root).duplicates == 8
    _, page = told(open_workspace(root))
    assert "The import read 80 rows, merged 8 exact duplicates" in page.chapters["data"]
    (root / "import.json").write_text("[]")
    assert read_import(root) is None


def test_a_broken_configuration_is_one_sentence(copy, capsys):
    (copy / CONFIG_FILE).write_text("seed = 'x'")
    assert run(["report", str(copy)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
