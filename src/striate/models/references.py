"""Names of networks that Striate does not define, and which of them may be imported. Imports no torch.

| name                     | the network                                      | allowed                 |
|--------------------------|--------------------------------------------------|-------------------------|
| `timm:convnext_tiny`     | of timm's registry                               | always                  |
| `torchvision:resnet18`   | a classifier of torchvision's registry           | always                  |
| `package.module:factory` | what a function or class of a module returns     | if the caller trusts it |
| `object:Net`             | an object without an import path: a local class  | if the caller passes it |

A bundle or config.yaml holds such a name and plain arguments, never code. Only `follow` imports anything, and
it follows an import path only if the caller has named the module or a package above it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate.errors import TrustError, UsageError, environment_error, unknown_name
from striate.validation import InvalidValueError, require, require_fields

TIMM, TORCHVISION, OBJECT = "timm", "torchvision", "object"
LIBRARIES = (TIMM, TORCHVISION)
MAX_CHANNELS = 16  # of images


@dataclass(frozen=True)
class Permission:
    """What a caller allows beyond the networks of Striate and of libraries. No file can hold one.

    Attributes:
        network: an `nn.Module`, which is copied with its weights, or a function that returns one; used in
            place of the network that the file names.
        trust: dotted names of packages or modules whose code may be imported, separated by commas.
    """

    network: Any = None
    trust: str = ""

    def __post_init__(self) -> None:
        """Check both; raises UsageError."""
        if self.network is not None and not callable(self.network):
            what = f"network= is a {type(self.network).__name__}"
            raise UsageError(what, "it must be an nn.Module or a function that returns one", "Give one")
        trusts(self.trust, "")


@dataclass(frozen=True)
class Reference:
    """How to build a network of another origin: `Description.arguments`, without `append`.

    Attributes:
        num_classes: number of scores.
        in_channels: channels of the images.
        input_size: height and width of the images.
        classifier: name of the last layer with weights; it is replaced if it has another number of outputs.
            Empty if there is none.
        first_conv: name of the first convolution; it is replaced if it has another number of input channels.
        options: further keyword arguments of the factory; plain values.
    """

    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    classifier: str = ""
    first_conv: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; empty ones are left out."""
        values = {**vars(self), "input_size": list(self.input_size)}
        return {name: value for name, value in values.items() if value not in ("", {})}


def is_foreign(name: str) -> bool:
    """Whether a name is of a network that Striate does not define."""
    return ":" in name


def is_custom(name: str) -> bool:
    """Whether a name is of a network of the user, which may come with weights."""
    return is_foreign(name) and kind_of(name) not in LIBRARIES


def kind_of(name: str) -> str:
    """`timm`, `torchvision`, `object`, or `import` for an import path.

    Raises:
        UsageError: the name is none of them.
    """
    where, _, what = name.partition(":")
    base, _, tag = what.partition(".") if where == TIMM else (what, "", "")  # such as resnet50.a1_in1k
    if where in (*LIBRARIES, OBJECT) and base.isidentifier() and f"tag{tag}".isidentifier():
        return where
    if what.isidentifier() and all(part.isidentifier() for part in where.split(".")):
        return "import"
    raise UsageError(
        f"unknown model {name[:200]!r}",
        "it is neither timm:NAME, torchvision:NAME nor package.module:factory",
        "Give one of these, or a network of Striate, such as resnet18",
    )


def reference(name: str, arguments: Mapping[str, Any]) -> Reference:
    """The reference in a description's arguments, checked.

    Raises:
        InvalidValueError, UsageError: an unknown or missing field, a wrong type or range.
    """
    kind = kind_of(name)
    own = {key: value for key, value in arguments.items() if key != "append"}
    require_fields(own, Reference, "arguments")
    found = Reference(**{**own, "input_size": tuple(own["input_size"])})
    for field_name, value, most in (
        ("num_classes", found.num_classes, 2**31 - 1), ("in_channels", found.in_channels, MAX_CHANNELS),
        ("input_size", min(found.input_size), 1 << 14), ("input_size", max(found.input_size), 1 << 14),
        ("append", arguments.get("append", 1), 2**31 - 1),
    ):  # fmt: skip
        require(value, int, f"arguments.{field_name}")
        if not 1 <= value <= most:
            raise InvalidValueError(f"arguments.{field_name}", value, f"from 1 to {most:,}")
    if kind in LIBRARIES and found.options:
        raise InvalidValueError("arguments.options", found.options, f"empty for a network of {kind}")
    return found


def path_of(network: Any) -> tuple[str, dict[str, Any]]:
    """The name of a network that the caller gives as an object, and the options that are bound to it.

    Args:
        network: an `nn.Module`, a class or a function that returns one, or `functools.partial` of these.

    Returns:
        An import path if the object is found there and its arguments are plain; else `object:Name`.
    """
    if isinstance(network, functools.partial) and not network.args:
        name, options = path_of(network.func)
        try:
            require(network.keywords, dict[str, Any], "options")
        except InvalidValueError:
            return f"{OBJECT}:{name.rpartition(':')[2]}", {}
        return name, {**options, **network.keywords}
    kind = network if hasattr(network, "__qualname__") else type(network)
    module, name = kind.__module__, kind.__qualname__
    found = getattr(sys.modules.get(module), name, None) if name.isidentifier() else None
    if found is network and module != "__main__" and module.partition(".")[0] not in ("builtins", OBJECT):
        return f"{module}:{name}", {}
    last = "".join(c for c in name.rpartition(".")[2] if c.isalnum() or c == "_")
    return f"{OBJECT}:{last if last.isidentifier() else 'network'}", {}


def trusts(trust: str, module: str) -> bool:
    """Whether a module is one of the trusted packages or modules, or below one.

    Args:
        trust: dotted names, separated by commas.
        module: dotted name of a module.

    Raises:
        UsageError: a name is not a dotted name.
    """
    names = [name.strip() for name in trust.split(",")] if trust else []
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"--trust {trust!r}", "it must be the name of a package", "Use --trust PACKAGE")
    return any(module == name or module.startswith(f"{name}.") for name in names)


def require_trusted(name: str, trust: str) -> None:
    """Refuse an import path that the caller does not trust, and an object that the caller must pass.

    Raises:
        TrustError: with what to do.
    """
    kind = kind_of(name)
    where, _, what = name.partition(":")
    if kind == OBJECT:
        raise TrustError(
            f"cannot build the network {what!r}",
            "it was given as an object without an import path, so the file does not say how to build it",
            "Give it again in Python: network= (a module or a function that returns one)",
        )
    package = where.partition(".")[0]
    if kind == "import" and package in sys.stdlib_module_names:
        why = f"{package} belongs to Python and defines no network"
        raise TrustError(f"the network {name} is not built", why, "Do not use a file that names it")
    if kind == "import" and not trusts(trust, where):
        raise TrustError(
            f"the network {name} is not built",
            f"importing it runs the code of {where}, which you have not allowed",
            f"If you trust it: --trust {package} (Python: trust={package!r}), or pass network=",
        )


def follow(name: str, trust: str) -> Callable[..., Any]:
    """Import what a trusted import path names; the module may be in the working folder.

    Raises:
        TrustError: the caller does not trust it, or it is defined by a module that the caller does not trust.
        UsageError: there is no such module or name.
    """
    require_trusted(name, trust)
    where, _, what = name.partition(":")
    fix = "Give package.module:factory, a function or class that can be imported from this folder"
    try:
        with working_folder_last():
            found: Callable[..., Any] = getattr(importlib.import_module(where), what)
    except Exception as error:  # a module may do anything
        if (failed := environment_error(error)) is not None:
            raise failed from error
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UsageError(f"cannot import {name}", why, fix) from error
    if not callable(found):
        raise UsageError(f"cannot build {name}", f"it is a {type(found).__name__}, not a function", fix)
    home = getattr(found, "__module__", None) or type(found).__module__
    if not trusts(trust, home):  # such as `from subprocess import run` in a trusted module
        why = f"it is defined in {home}, which you have not allowed"
        raise TrustError(f"the network {name} is not built", why, "Name the module that defines it")
    return found


def require_known(name: str, known: Iterable[str]) -> None:
    """Check that a library has a network, whose name may have a tag; raises UsageError with near matches."""
    library, _, own = name.partition(":")
    names = set(known)
    if own.partition(".")[0] not in names:
        listing = "timm.list_models()" if library == TIMM else "torchvision.models.list_models()"
        raise unknown_name(f"model of {library}", own, names, f"{listing} lists them")


@contextlib.contextmanager
def working_folder_last() -> Iterator[None]:
    """A context in which modules in the working folder can be imported, after all others."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            with contextlib.suppress(ValueError):
                sys.path.remove(here)


@contextlib.contextmanager
def installed(library: str) -> Iterator[Any]:
    """Import an optional library, never from the working folder; its modules load inside the context.

    Raises:
        UsageError: it is not installed.
    """
    before, here = list(sys.path), os.path.realpath(Path.cwd())
    sys.path[:] = [place for place in before if place and os.path.realpath(place) != here]
    try:
        try:
            module = importlib.import_module(library)
        except ImportError as error:
            why = " ".join(str(error).split())
            raise UsageError(f"cannot use {library}", why, f"pip install {library}") from error
        yield module
    finally:
        sys.path[:] = before


NOTHING = Permission()
