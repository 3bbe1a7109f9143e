"""Pages of workspaces in which a simulated reader answers: a control, classes, no times."""

from __future__ import annotations

import pytest

from app.rooms import archive_room
from ssl_core.claims.claim import claim
from ssl_core.claims.curve import label_cost
from ssl_core.claims.proof import proof
from ssl_core.rounds import run_round
from ssl_core.simulate import simulate
from ssl_core.workspace import Workspace, open_workspace
from tests import toy, web

PRICE = {"per_hour": 100.0, "currency": "EUR"}
pytestmark = pytest.mark.usefixtures("no_label_studio")


def replayed(root, kind: str, rounds: int = 3, **tables) -> Workspace:
    ws, room = toy.opened(toy.make(root, toy.TASKS[kind], map={"methods": ["pca"]}, **tables))
    for _ in range(rounds):
        run_round(ws, room)
    return ws


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    """Three rounds, and a replay beside random with two seeds."""
    root = tmp_path_factory.mktemp("binary") / "w"
    ws = replayed(root, "binary", cost=PRICE)
    simulate(ws, archive_room, budgets=["8", "16"], strategies=["margin"], seeds=[0, 1])
    ws.ledger.close()
    return root


def test_overview_says_what_chance_would_have_needed(binary):
    at = web.page(binary, "overview").run()
    curve = label_cost(open_workspace(binary))
    told = claim(curve)
    assert told.control is not None
    shown = web.metrics(web.checked(at))
    assert shown["AUROC on the vault"] == f"{told.point.auroc.value:.3f}"
    assert shown["Chance would need"] == f"{told.control.first} or fewer"
    assert "Random choice, replayed with 2 seeds" in web.text(at)
    proven = proof(open_workspace(binary), curve=curve)
    assert proven.verdict.sentence in web.text(at)
    assert "margin is not told from random" in web.text(at)
    assert "labels, margin needs" in web.text(at)
    web.checked(at.segmented_control(key="o-origin").set_value("replay").run())
    assert not at.error


def test_only_what_is_missing_is_asked_for(binary):
    text = web.text(web.shown(binary, "overview"))
    assert "Reader-hours and money appear once reads carry a time." in text
    assert "is set in readloop.toml" not in text


@pytest.mark.parametrize("role", ["reader", "engineer"])
@pytest.mark.parametrize("page", web.PAGES)
def test_exclusive_classes_have_all_pages(classes, page, role):
    at = web.page(classes, page, role=role).run()
    for toggle in [t.key for t in web.checked(at).toggle]:
        web.checked(at.toggle(key=toggle).set_value(True).run())
    assert not at.error
    if page == "case" and role == "engineer":
        for stage in ("teacher", "student"):
            assert at.dataframe[0].value[stage].sum() == pytest.approx(1, abs=1e-4)
    if page == "audit" and role == "engineer":
        assert set(at.dataframe[0].value["sign"]) == {"present"}


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes") / "w"
    replayed(root, "multi_class", 2).ledger.close()
    return root
