"""Command-line flags from the options that configurations declare."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Container
from typing import Annotated, Any

import typer

from striate.training.config import MAX_BATCH, MAX_WORKERS
from striate.training.options import Option, Options, declarations, flag, kinds_of, panel


def number(help: str, *flags: str, low: float, high: float, **about: Any) -> Any:
    """A numeric option with a finite range; `about` are arguments of `typer.Option`."""
    # Not all versions of Typer find that NaN is out of range.
    return typer.Option(*flags, help=help, min=low, max=high, callback=_finite, **about)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not finite")
    return value


# Arguments and flags that several commands share.
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Bundle (.safetensors model file) or run folder.")
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", rich_help_panel="Data",
        help="Repeat a run: data and options from its config.yaml or folder; options given here override it.",
    ),
]  # fmt: skip
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")]
WORKERS: dict[str, Any] = {
    "help": "Number of threads that decode images.", "min": 1, "max": MAX_WORKERS,
    "show_default": "one per CPU core",
}  # fmt: skip
Batch = Annotated[int, number("Batch size.", "--batch", "--batch-size", "-b", low=1, high=MAX_BATCH)]
Trust = Annotated[
    str,
    typer.Option(
        help="Packages whose code may be imported to build a network that Striate does not define, separated "
        "by commas.",
        show_default=False,
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", "-j", **WORKERS)]
TTA = "Test-time augmentation, the mean scores of: flip (image and mirror image), crops (ten crops)."

PATH_COLUMN: dict[str, Any] = {
    "help": "Column of a CSV or TSV file with the paths of the images.",
    "show_default": "a usual name such as path",
}
LABEL_COLUMN: dict[str, Any] = {
    "help": "Column with the class names.", "show_default": "a usual name such as label",
}  # fmt: skip
PathColumn = Annotated[str | None, typer.Option("--path-column", **PATH_COLUMN)]
LabelColumn = Annotated[str | None, typer.Option("--label-column", **LABEL_COLUMN)]
MULTI_LABEL: dict[str, Any] = {
    "help": "Whether images have several classes: labels such as cat;dog, or links to an image in several "
    "class folders.",
    "show_default": "decided by the data",
}
MultiLabel = Annotated[bool | None, typer.Option("--multi-label/--no-multi-label", **MULTI_LABEL)]

_PANELS = ("Data", "Model", "Optimization", "Run")


def with_options(
    kind: type[Options], only: Container[str] | None = None, default: str = ""
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add a flag for each option of a configuration to a command.

    The command receives them as `options`: a dict of those that the user gave, under the names of the fields.
    All others keep the defaults of the configuration.

    Args:
        kind: the configuration.
        only: names of the options; None for all of them.
        default: what `--help` shows as the default of each option, if not that of the configuration.
    """
    table = sorted(declarations(kind), key=lambda row: _PANELS.index(panel(kind, row[0])))
    generated: list[inspect.Parameter] = []
    for name, declared, hint in table:
        if declared.in_cli and (only is None or name in only):
            generated += _parameters(kind, name, declared, hint, default)
    names = {parameter.name for parameter in generated}

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        own = inspect.signature(function, eval_str=True).parameters.values()

        def command(**values: Any) -> int:
            context: typer.Context = values["context"]
            options = {name: values.pop(name) for name in names}
            given = {name: value for name, value in options.items() if _was_given(context, name)}
            return function(**values, options=given)

        parameters = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != "options"
        ] + generated
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        return command

    return decorate


def _parameters(
    kind: type[Options], name: str, declared: Option, hint: Any, shown_default: str
) -> list[inspect.Parameter]:
    """The parameter of an option, and hidden ones for its old names."""
    kinds, default = kinds_of(hint), kind.__dataclass_fields__[name].default
    value_type: Any = next((k for k in (bool, float, int) if k in kinds), str)
    flags = declared.flags or (flag(name),)
    shown = {
        "help": _help(declared), "rich_help_panel": panel(kind, name),
        "show_default": shown_default or ((declared.unset or False) if default is None else True),
        "autocompletion": (lambda: list(declared.known)) if declared.choices else None,
    }  # fmt: skip
    found = [_parameter(name, value_type | None if default is None else value_type, default, *flags, **shown)]
    for old in declared.old_names:
        spelling = f"{flag(old)}/--no-{old.replace('_', '-')}" if "/" in flags[0] else flag(old)
        found.append(_parameter(old, value_type | None, None, spelling, hidden=True))
    return found


def _parameter(name: str, kind: Any, default: Any, *flags: str, **about: Any) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(*flags, **about)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help(declared: Option) -> str:
    """The sentence of an option, with a range that one might exceed, or with choices it does not name."""
    choices = declared.known
    if 0 < len(choices) <= 8 and not all(name in declared.help for name in choices):
        return f"{declared.help} ({', '.join(choices)})."
    limit = declared.maximum if declared.below is None else declared.below
    is_low = limit is not None and limit < 1e6  # higher ones only guard against a slip of the finger
    return f"{declared.help} ({declared.range})." if is_low else f"{declared.help}."


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
