"""The signatures and docstrings of functions that take options: what editors, `help()` and notebooks show."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from striate.tasks import TASKS
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.options import docstring

if TYPE_CHECKING:

    @dataclass(frozen=True, kw_only=True)
    class NamedSeq2Seq(Seq2SeqConfig):
        """The options of seq2seq, with a `task` that the caller must name; classification is the default."""

        task: Literal["seq2seq"]

else:
    NamedSeq2Seq = Seq2SeqConfig

__all__ = [
    "ClassificationConfig",
    "NamedSeq2Seq",
    "Seq2SeqConfig",
    "document_options",
    "evaluation_options",
    "resume_options",
    "training_options",
]
F = TypeVar("F", bound=Callable[..., Any])
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_RESUME = ("epochs", "budget", "patience", "device", "workers", "save_every", "rollbacks", "network", "trust")


def document_options(function: Callable[..., Any]) -> None:
    """Give a function the keyword arguments of all tasks, and describe them.

    An option of several tasks has the default of classification. The docstring has `{classification}` and
    `{seq2seq}` in their places.
    """
    more = [inspect.Parameter("task", _KEYWORD, default="classification", annotation="str")]
    more.append(inspect.Parameter("config", _KEYWORD, default=None))
    _set_keywords(function, [*_options(ClassificationConfig), *more, *_options(Seq2SeqConfig)])
    function.__doc__ = (function.__doc__ or "").format(
        classification=docstring(ClassificationConfig), seq2seq=docstring(Seq2SeqConfig)
    )


def training_options(kind: type[Any]) -> Callable[[F], F]:
    """Decorate a function that passes keyword arguments on to a configuration: its signature lists them."""
    return lambda function: _set_keywords(function, _options(kind))


def resume_options(function: F) -> F:
    """Decorate a function whose keyword arguments are the options that a resumed run may change."""
    found = {parameter.name: parameter for parameter in _options(ClassificationConfig)}
    return _set_keywords(function, [found[name].replace(default=...) for name in _RESUME])


def evaluation_options(function: F) -> F:
    """Decorate a function that passes keyword arguments on to the `evaluate` of a task.

    Their defaults are shown as `...`, since reading them would load torch.
    """
    names = dict.fromkeys(("split", "device", "progress"))
    names |= dict.fromkeys(name for task in TASKS.values() for name in task.evaluate_options)
    return _set_keywords(function, [inspect.Parameter(name, _KEYWORD, default=...) for name in names])


def _options(kind: type[Any]) -> list[inspect.Parameter]:
    return [p.replace(kind=_KEYWORD) for p in inspect.signature(kind).parameters.values() if p.name != "data"]


def _set_keywords(function: F, parameters: Iterable[inspect.Parameter]) -> F:
    """Replace the `**` in a function's signature by these parameters; the first of equal names counts."""
    own = inspect.signature(function)
    named = {p.name: p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    for parameter in parameters:
        named.setdefault(parameter.name, parameter)
    function.__signature__ = own.replace(parameters=list(named.values()))  # type: ignore[attr-defined]
    return function
