import functools
import subprocess
import sys

import pytest
import torch
from torch import nn

from striate import models
from striate.errors import TrustError, UsageError
from striate.models import references
from striate.models.references import Permission, follow, kind_of, path_of, reference, trusts
from striate.validation import InvalidValueError

ARGUMENTS = {"num_classes": 2, "in_channels": 3, "input_size": [8, 8]}


class Local(nn.Module):
    """A network of a module that can be imported."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)


def make(num_classes, width=1):
    return Local(num_classes)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("timm:convnext_tiny", "timm"), ("timm:flexivit_base.300ep_in1k", "timm"),
        ("torchvision:resnet18", "torchvision"), ("object:Net", "object"), ("a.b:make", "import"),
        ("netz:größe", "import"),
    ],
)  # fmt: skip
def test_kinds(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    "name",
    ["timm:", ":x", "a:", "a:b:c", "a/b:c", "../x:make", "timm:hf-hub:user/x", "timm:local-dir:/tmp",
     "a..b:c", "a:b.c", "a: b", "C:\\x", "torchvision:x.y", "timm:a.b.c", ".a:b", "a:b\n"],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="unknown model"):
        kind_of(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "arguments.num_classes is 0"), ({"in_channels": 17}, "in_channels is 17"),
        ({"input_size": [8]}, "input_size is"), ({"input_size": [8, 0]}, "input_size is 0"),
        ({"checkpoint_path": "x"}, "checkpoint_path is unknown"), ({"trust": "os"}, "trust is unknown"),
        ({"options": {"checkpoint_path": "x"}}, "empty for a network of timm"),
        ({"append": 0}, "append is 0"),
        ({"classifier": 3}, "classifier is 3"), ({"num_classes": True}, "num_classes is True"),
    ],
)  # fmt: skip
def test_arguments_are_checked(change, message):
    with pytest.raises(InvalidValueError, match=message):
        reference("timm:resnet18", ARGUMENTS | change)


def test_names_of_objects():
    here = Local.__module__
    assert path_of(Local) == (f"{here}:Local", {})
    assert path_of(make) == (f"{here}:make", {})
    assert path_of(functools.partial(make, width=3)) == (f"{here}:make", {"width": 3})
    assert path_of(functools.partial(make, width=torch.ones(1))) == ("object:make", {})
    assert path_of(Local()) == ("object:Local", {})
    assert path_of(lambda n: Local(n)) == ("object:lambda", {})

    class Inner(Local):
        pass

    assert path_of(Inner) == ("object:Inner", {})


@pytest.mark.parametrize(
    ("trust", "module", "expected"),
    [
        ("a", "a", True), ("a", "a.b", True), ("a.b", "a.b.c", True), ("a.b", "a", False), ("a", "ab", False),
        ("a.b", "a.bc", False), ("", "a", False), ("x, a", "a.b", True),
    ],
)  # fmt: skip
def test_whole_components_are_compared(trust, module, expected):
    assert trusts(trust, module) is expected


@pytest.mark.parametrize("trust", ["*", "a.", "a,,b", "a b", "."])
def test_trust_is_a_list_of_names(trust):
    with pytest.raises(UsageError, match="--trust"):
        trusts(trust, "a")
    with pytest.raises(UsageError, match="--trust"):
        Permission(trust=trust)


def test_a_network_is_a_module_or_a_function():
    with pytest.raises(UsageError, match=r"network= is a str: it must be an nn\.Module"):
        Permission("resnet18")


@pytest.mark.parametrize("name", ["subprocess:run", "os:system", "builtins:exec", "torch.hub:load", "a:b"])
def test_nothing_is_imported_without_trust(name, monkeypatch):
    monkeypatch.setattr(references.importlib, "import_module", lambda _: pytest.fail("imported"))
    with pytest.raises(TrustError):
        models.build(name, **ARGUMENTS, options={"args": ["true"]})


def test_a_file_cannot_give_itself_permission():
    with pytest.raises(UsageError, match="no argument permission"):
        models.build("a:b", **ARGUMENTS, permission={"trust": "a"})


def test_the_standard_library_is_never_followed():
    with pytest.raises(TrustError, match="belongs to Python and defines no network"):
        follow("subprocess:run", "subprocess")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with modules, which are forgotten afterwards."""
    (tmp_path / "own_nets").mkdir()
    (tmp_path / "own_nets" / "__init__.py").write_text("")
    (tmp_path / "own_nets" / "small.py").write_text(
        "from subprocess import run\nimport sibling_of_nets\nfrom torch import nn\n"
        "VALUE = 3\nclass Net(nn.Linear):\n"
        "    def __init__(self, num_classes): super().__init__(3, num_classes)\n"
    )
    (tmp_path / "own_nets" / "broken.py").write_text("1 / 0")
    (tmp_path / "own_nets" / "typo.py").write_text("def Net(:")
    (tmp_path / "sibling_of_nets.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith(("own_nets", "sibling_of_nets"))]:
        del sys.modules[name]


def test_a_trusted_module_may_be_in_the_working_folder(folder):
    before = list(sys.path)
    made = models.build("own_nets.small:Net", permission=Permission(trust="own_nets"), **ARGUMENTS)
    assert made.out_features == 2
    assert sys.path == before


def test_what_a_trusted_module_has_imported_is_not_trusted(folder):
    with pytest.raises(TrustError, match="it is defined in subprocess, which you have not allowed"):
        follow("own_nets.small:run", "own_nets")


@pytest.mark.parametrize(
    ("name", "message"),
    [("own_nets.none:Net", "No module named"), ("own_nets.small:Other", "no attribute"),
     ("own_nets.small:VALUE", "it is a int, not a function"),
     ("own_nets.broken:Net", "cannot import own_nets.broken:Net: ZeroDivisionError: division by zero"),
     ("own_nets.typo:Net", "SyntaxError: ")],
)  # fmt: skip
def test_wrong_paths_are_usage_errors(folder, name, message):
    with pytest.raises(UsageError, match=message):
        follow(name, "own_nets")


def test_libraries_are_not_imported_from_the_working_folder(tmp_path):
    """In a process of its own, whose path starts with the working folder."""
    for name in ("timm", "torchvision"):
        (tmp_path / f"{name}.py").write_text("open('marker', 'w')")
    code = (
        "from striate.errors import UsageError\nfrom striate.models.references import installed\n"
        "for name in ('timm', 'torchvision'):\n    try:\n        with installed(name):\n            pass\n"
        "    except UsageError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "marker").exists()
