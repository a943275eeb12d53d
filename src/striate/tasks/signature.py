"""The signature and docstring of a function that takes the options of any task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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

__all__ = ["ClassificationConfig", "NamedSeq2Seq", "Seq2SeqConfig", "document_options"]


def document_options(function: Callable[..., Any]) -> None:
    """Give a function the keyword arguments of classification, and describe the options of all tasks.

    Its docstring has `{classification}` and `{seq2seq}` in their places.
    """
    parameters = inspect.signature(ClassificationConfig).parameters
    function.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    function.__doc__ = (function.__doc__ or "").format(
        classification=docstring(ClassificationConfig), seq2seq=docstring(Seq2SeqConfig)
    )
