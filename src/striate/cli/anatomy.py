"""`striate anatomy`: what every layer of a network does to size, sight and cost."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

CALCULATOR = "Calculator (striate anatomy conv)"


def anatomy(
    models: Annotated[
        list[str],
        typer.Argument(help="A network's name, or package.module:factory; `conv` for the calculator."),
    ],
    compare: Annotated[bool, typer.Option("--compare", help="Several networks side by side.")] = False,
    imgsz: Annotated[
        str | None, typer.Option(help="Image size in pixels: 224, or 480x640 (height x width).")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", "--batch-size", "-b", min=1, help="Images in the batch.")
    ] = 1,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Levels of modules to show; all by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, one line a layer.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
    size: Annotated[
        int, typer.Option("--input", help="Pixels on one side.", rich_help_panel=CALCULATOR)
    ] = 224,
    kernel: Annotated[int, typer.Option(help="Of the kernel.", rich_help_panel=CALCULATOR)] = 3,
    stride: Annotated[int, typer.Option(help="Of the convolution.", rich_help_panel=CALCULATOR)] = 1,
    padding: Annotated[int, typer.Option(help="On each side.", rich_help_panel=CALCULATOR)] = 0,
    dilation: Annotated[int, typer.Option(help="Of the kernel.", rich_help_panel=CALCULATOR)] = 1,
    channels: Annotated[int, typer.Option(help="That come in.", rich_help_panel=CALCULATOR)] = 3,
    filters: Annotated[int, typer.Option(help="That go out.", rich_help_panel=CALCULATOR)] = 64,
    groups: Annotated[int, typer.Option(help="Of channels.", rich_help_panel=CALCULATOR)] = 1,
    ceil: Annotated[
        bool, typer.Option("--ceil", help="Round up, as pools may.", rich_help_panel=CALCULATOR)
    ] = False,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="A transposed convolution.", rich_help_panel=CALCULATOR)
    ] = False,
    stack: Annotated[
        list[str] | None,
        typer.Option(help="Kernels in a row, 3x3,3x3; repeat to compare.", rich_help_panel=CALCULATOR),
    ] = None,
    reduce: Annotated[
        int | None, typer.Option(help="Channels behind a 1x1 in front.", rich_help_panel=CALCULATOR)
    ] = None,
) -> None:
    """Show each layer of a network: size, receptive field, parameters and multiply-accumulates.

    Python: striate.anatomy.trace("vgg16").
    """
    if sum((as_json, as_csv, as_markdown)) > 1:
        raise UsageError("more than one of --json, --csv and --markdown", "there is one output", "Choose one")
    if models == ["conv"]:
        if stack:
            _stacks(stack, as_json)
        else:
            options = {"channels": channels, "filters": filters, "groups": groups}
            options |= {"ceil": ceil, "transposed": transposed}
            _calculate(size, kernel, stride, padding, dilation, options, reduce, as_json)
        return
    from striate.anatomy import table, trace

    if len(models) > 1 and not compare:
        raise UsageError(
            f"{len(models)} networks: {', '.join(models)}", "one is shown at a time", "Add --compare"
        )
    found = []
    for name in models:
        result = trace(_network(name), size=_size(imgsz), batch=batch)
        found.append(_named(result, name))
    if compare:
        print(json.dumps(table.compare(found)) if as_json else table.compare_text(found))
    elif as_json:
        print(json.dumps(table.to_dict(found[0], depth)))
    elif as_csv:
        print(table.to_csv(found[0], depth), end="")
    elif as_markdown:
        print(table.to_markdown(found[0], depth))
    else:
        print(table.to_text(found[0], shutil.get_terminal_size((120, 24)).columns, depth))


def _named(result: Any, name: str) -> Any:
    """The record under the name that the user gave."""
    from dataclasses import replace

    return replace(result, model=name)


def _network(name: str) -> str | nn.Module:
    """The network that an argument stands for.

    Raises:
        UsageError: there is none.
    """
    if ":" in name:
        return _made(*name.rsplit(":", 1))
    return name  # `trace` knows the names, and near ones


def _made(module: str, factory: str) -> nn.Module:
    """Call `factory` of a user's module, which is looked for in the working folder, too."""
    from torch import nn

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        made = getattr(importlib.import_module(module), factory)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"cannot import {module!r}", str(error), "Give package.module:factory, importable from here"
        ) from error
    except AttributeError as error:
        raise UsageError(
            f"no {factory!r} in {module}", str(error), "Name a function or a class of it"
        ) from error
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:
            raise UsageError(
                f"{module}:{factory} failed",
                f"{type(error).__name__}: {error}",
                "It is called without arguments",
            ) from error
    if not isinstance(made, nn.Module):
        raise UsageError(
            f"{module}:{factory} made a {type(made).__name__}",
            "the anatomy is that of a torch.nn.Module",
            "Let it return one",
        )
    return made


def _size(text: str | None) -> tuple[int, int] | None:
    """Height and width from 224 or 480x640."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"image size {text!r}", "it is not a number of pixels", "Use 224, or 480x640")
    return int(parts[0]), int(parts[-1])


def _calculate(
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    options: dict[str, Any],
    bottleneck: int | None,
    as_json: bool,
) -> None:
    """One layer, step by step."""
    from striate.anatomy import explain, receptive_field, reduction

    step = explain(size, kernel, stride, padding, dilation, **options)
    sight = receptive_field([(kernel, stride, padding, dilation)])
    saved = None
    if bottleneck is not None:
        saved = reduction(step.output, options["channels"], options["filters"], kernel, bottleneck)
    if as_json:
        out = {"output": step.output, "params": step.params, "macs": step.macs, "steps": step.lines}
        if saved is not None:
            out["reduction"] = {"macs": saved.plain, "reduced_macs": saved.reduced}
        print(json.dumps(out))
        return
    print("\n".join(step.lines))
    if not options["transposed"]:
        lo, hi = sight.at(0)
        print(f"a unit sees {sight.size} pixels; the first one {lo} to {hi}, the next {stride} further on")
    if saved is not None:
        print(
            f"with a 1x1 to {bottleneck} channels in front, on {step.output} x {step.output}: "
            f"{saved.reduced:,} MACs instead of {saved.plain:,} ({saved.reduced / saved.plain:.3g}x)"
        )


def _stacks(texts: list[str], as_json: bool) -> None:
    """Stacks of kernels against each other."""
    from striate.anatomy import stack

    stacks = []
    for text in texts:
        kernels = [part.strip().lower().split("x") for part in text.split(",")]
        if not all(len(set(pair)) == 1 and len(pair) <= 2 and pair[0].isdecimal() for pair in kernels):
            raise UsageError(f"stack {text!r}", "it is not a list of square kernels", "Write 3x3,3x3")
        stacks.append(stack([int(pair[0]) for pair in kernels]))
    if as_json:
        print(
            json.dumps([{"kernels": s.kernels, "rf": s.sight, "weights_per_c2": s.weights} for s in stacks])
        )
        return
    for one in stacks:
        terms = " + ".join(f"{kernel}²" for kernel in one.kernels)
        print(
            f"{one.name}: sees {one.sight} x {one.sight}, {one.weights} C² parameters ({terms}, C in and out)"
        )
    first = stacks[0]
    for other in stacks[1:]:
        relation = "the same" if other.sight == first.sight else f"{first.sight} instead of {other.sight}"
        ratio = first.weights / other.weights
        print(f"{first.name} against {other.name}: sight {relation}, {ratio:.2f}x the parameters")
