"""The floors of the house: a file imports from lower floors alone, and never sideways between packages of one floor."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import unlearn

ROOT = Path(unlearn.__file__).parent
FLOORS = {
    "values": 0,
    "data": 1,
    "models": 1,
    "penalties": 1,
    "curvature": 1,
    "train": 2,
    "methods": 2,
    "metrics": 2,
    "records": 3,
    "log": 3,
    "figures": 3,
    "store": 3,
    "results": 3,
    "pipeline": 4,
    "__main__": 4,
}
SIDEWAYS = {("methods", "train"), ("__main__", "pipeline")}  # what one floor may take from itself
FILES = sorted(ROOT.rglob("*.py"))


def room(parts):
    return parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    here = room(path.relative_to(ROOT).parts)
    if here == "__init__":
        assert not list(imports(path))
        return
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top in ("hydra", "omegaconf"):
            assert FLOORS[here] == 4, f"{path.name} knows Hydra"
        if top != "unlearn" or not rest or room(rest.split(".")) == here:
            continue
        there = room(rest.split("."))
        assert FLOORS[there] < FLOORS[here] or (here, there) in SIDEWAYS, f"{here} imports {there}"
        if FLOORS[here] == 3:
            assert FLOORS[there] == 0, f"{here} imports {there}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages([str(ROOT)], "unlearn.")])
def test_every_module_imports(name):
    assert importlib.import_module(name).__doc__
