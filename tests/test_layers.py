"""Imports point down the layers of docs/architecture.md, those inside functions too."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "striate"

LAYERS = {
    "errors": 0, "facts": 0, "files": 0, "progress": 0, "sections": 0, "version": 0,
    "device": 1, "transforms": 1, "metrics": 1, "models": 1,
    "kernels": 2, "data": 2, "bundle": 2, "anatomy": 2, "weights": 2,
    "inference": 3,
    "training": 4, "explain": 4, "export": 4,
    "tasks": 5,
    "report": 6, "serve": 6, "labs": 6, "runs": 6,
    "cli": 7, "__init__": 0, "__main__": 7,
}  # fmt: skip

# Within a layer, parts stand side by side and do not import each other, but for these.
SIDEWAYS = {
    ("files", "errors"),  # a write that fails is told as an error of ours
    ("device", "kernels"),
    ("runs", "report"),
    ("weights", "bundle"),  # imported weights end up as a bundle
    ("data", "bundle"),
    ("labs", "report"),
    ("__main__", "cli"),
}

FILES = sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    """The first name below `striate` that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> set[str]:
    """The parts of striate that a module imports anywhere in its text, but for type checking only."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {
        ([*name.split("."), "__init__"])[1]
        for name in names
        if name == "striate" or name.startswith("striate.")
    }


def runtime_only(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of `if TYPE_CHECKING:`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    here = part(path)
    for there in imported_parts(runtime_only(ast.parse(path.read_text("utf-8")))) - {here}:
        assert there in LAYERS, f"{there} has no layer"
        assert LAYERS[there] < LAYERS[here] or (here, there) in SIDEWAYS, f"{here} may not import {there}"


def test_every_part_has_a_layer():
    assert {part(path) for path in FILES} <= set(LAYERS)


def test_only_the_command_line_prints_or_exits():
    for path in FILES:
        if part(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("print", "sys.exit", "exit"), f"{path}:{node.lineno} calls {name}"


def test_there_is_no_utils():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")]
