"""The arrows between packages, read from the imports (the design's "house")."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "connectors", "ssl_core")
ALLOWED = {
    "app": {"app", "connectors", "ssl_core", "sample_data"},
    "connectors": {"connectors", "ssl_core"},
    "ssl_core": {"ssl_core"},
}
BORDERS = {"ssl_core.records", "ssl_core.source", "ssl_core.errors"}
OUTSIDE = {"streamlit", "label_studio_sdk", "pydicom", "typer", "rich"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, at the top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in (*PACKAGES, "tests")}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_arrow_runs_back(package):
    assert modules(package)
    for path in modules(package):
        strays = {n for n in ours(path) if n.split(".")[0] not in ALLOWED[package]}
        assert not strays, f"{path.relative_to(ROOT)} imports {strays}"


def test_connectors_see_only_the_borders_of_the_core():
    for path in modules("connectors"):
        for name in ours(path):
            if name.startswith("ssl_core"):
                module = ".".join(name.split(".")[:2])
                known = module in BORDERS or name in BORDERS
                assert known, f"{path.relative_to(ROOT)} imports {name}"


def test_the_core_knows_no_page_no_server_and_no_terminal():
    for path in modules("ssl_core"):
        strays = {n for n in imports(path) if n.split(".")[0] in OUTSIDE}
        assert not strays, f"{path.relative_to(ROOT)} imports {strays}"


def test_no_module_of_the_core_imports_in_a_circle():
    graph = {}
    names = {name_of(p) for p in modules("ssl_core")}
    for path in modules("ssl_core"):
        targets = set()
        for name in ours(path):
            while name and name not in names:
                name = name.rpartition(".")[0]
            targets.add(name)
        graph[name_of(path)] = targets - {name_of(path), ""}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in graph[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_nothing_pickles_or_loads_code():
    for package in PACKAGES:
        for path in modules(package):
            text = path.read_text(encoding="utf-8")
            assert "import pickle" not in text
            assert "weights_only=False" not in text
            assert "allow_pickle=True" not in text


def test_nothing_names_a_place_of_somebody_s_machine():
    for package in PACKAGES:
        for path in modules(package):
            text = path.read_text(encoding="utf-8")
            assert "../shared" not in text, path
            assert "/work/" not in text, path
