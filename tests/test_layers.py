"""Imports point down the layers of docs/architecture.md and have no cycles, not even inside functions."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "striate"

LAYERS = {
    "charts": 0, "csv_file": 0, "errors": 0, "facts": 0, "files": 0, "markup": 0, "memory": 0,
    "native_modules": 0, "printable": 0, "progress": 0, "reading": 0, "sections": 0, "strict_json": 0,
    "strict_yaml": 0, "validation": 0, "version": 0,
    "device": 1, "transforms": 1, "metrics": 1, "models": 1, "tensor_file": 1,
    "kernels": 2, "data": 2, "bundle": 2, "anatomy": 2, "weights": 2,
    "explain": 3, "inference": 3,
    "training": 4, "exporters": 4,
    "tasks": 5,
    "report": 6, "serve": 6, "labs": 6, "studies": 6, "api": 6,
    "cli": 7, "__init__": 0, "__main__": 7,
}  # fmt: skip

# Exceptions: parts of the same layer do not import each other otherwise.
SIDEWAYS = {
    ("__init__", "version"),
    ("files", "errors"),  # a failed write raises one of our errors
    ("memory", "errors"),
    ("markup", "printable"),
    ("progress", "printable"),
    ("reading", "errors"),
    ("validation", "errors"),
    ("strict_yaml", "errors"),
    ("strict_yaml", "reading"),
    ("strict_yaml", "validation"),
    ("csv_file", "errors"),
    ("csv_file", "reading"),
    ("csv_file", "printable"),
    ("sections", "charts"),  # a section contains charts
    ("strict_json", "printable"),
    ("csv_file", "files"),
    ("api", "report"),
    ("api", "studies"),
    ("studies", "report"),
    ("inference", "explain"),  # a classifier explains its predictions
    ("models", "device"),  # weights are fitted to networks on the meta device
    ("weights", "bundle"),  # imported weights end up as a bundle
    ("data", "bundle"),
    ("labs", "report"),
    ("__main__", "cli"),
}

FILES = sorted(SOURCE.rglob("*.py"))
MAX_IMPORTS = 15  # of the project's own modules, in one module


def part(path: Path) -> str:
    """The first name below `striate` that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@functools.cache
def runtime_tree(path: Path) -> ast.Module:
    """The syntax tree of a module without the bodies of `if TYPE_CHECKING:`."""
    return runtime_only(ast.parse(path.read_text("utf-8")))


def imported_parts(tree: ast.AST) -> set[str]:
    """The parts of striate that a module imports anywhere in its text, except for type checking."""
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
    for there in imported_parts(runtime_tree(path)) - {here}:
        assert there in LAYERS, f"{there} has no layer"
        assert LAYERS[there] < LAYERS[here] or (here, there) in SIDEWAYS, f"{here} may not import {there}"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


@functools.cache
def imported_modules(path: Path) -> set[str]:
    """The project's modules that a module imports anywhere in its text, except for type checking."""
    found = set()
    for node in ast.walk(runtime_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return found & MODULES.keys() - {module_name(path)}


def test_there_are_no_import_cycles():
    """Between single modules, so inside packages too."""
    graph = {name: imported_modules(path) for name, path in MODULES.items()}
    assert len(graph) > 100
    assert sum(map(len, graph.values())) > 300
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_module_imports_many_others(path):
    assert len(imported_modules(path)) <= MAX_IMPORTS, sorted(imported_modules(path))


def test_every_part_has_a_layer():
    assert {part(path) for path in FILES} <= set(LAYERS)


def test_only_the_command_line_prints_or_exits():
    for path in FILES:
        if part(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(runtime_tree(path)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("print", "sys.exit", "exit"), f"{path}:{node.lineno} calls {name}"


def test_there_is_no_utils():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")]
