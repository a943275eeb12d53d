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
        list[str] | None,
        typer.Argument(help="A network's name, or package.module:factory; `conv` for the calculator."),
    ] = None,
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
    html: Annotated[Path | None, typer.Option(help="Write an interactive page here.")] = None,
    image: Annotated[Path | None, typer.Option(help="The photograph of that page.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Measure every receptive field with gradients, and compare.")
    ] = False,
    erf: Annotated[
        Path | None, typer.Option(help="Draw the effective receptive field over this photograph.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Whose field --erf draws; the last map's.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against size and cost, of all networks or those named.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where --erf puts its picture.")] = Path("erf.png"),
    seed: Annotated[int, typer.Option(help="Of the random weights that --erf looks at.")] = 0,
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
    if plot is not None:
        _plot(models or [], plot)
        return
    if not models:
        raise UsageError(
            "no network", "there is nothing to look at", "Name one, as in `striate anatomy vgg16`"
        )
    if models == ["conv"]:
        if stack:
            _stacks(stack, as_json)
        else:
            options = {"channels": channels, "filters": filters, "groups": groups}
            options |= {"ceil": ceil, "transposed": transposed}
            _calculate(size, kernel, stride, padding, dilation, options, reduce, as_json)
        return
    if (check or erf is not None) and len(models) > 1:
        raise UsageError("--check or --erf of several networks", "each takes one", "Name one network")
    if check:
        _check(models[0], _size(imgsz), as_json)
        return
    if erf is not None:
        _effective(models[0], _size(imgsz), erf, layer, out, seed)
        return
    from striate.anatomy import table, trace

    if html is not None and len(models) > 1:
        raise UsageError("a page for several networks", "a page shows one", "Leave out --html")
    if len(models) > 1 and not compare:
        raise UsageError(
            f"{len(models)} networks: {', '.join(models)}", "one is shown at a time", "Add --compare"
        )
    found = []
    for name in models:
        result = trace(_network(name), size=_size(imgsz), batch=batch)
        found.append(_named(result, name))
    if html is not None:
        _page(found[0], html, image)
        return
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


def _page(result: Any, path: Path, image: Path | None) -> None:
    """Write the interactive page."""
    from striate.report.anatomy_page import render
    from striate.transforms.preprocess import Preprocess

    pixels = None
    if len(result.image) != 2:
        raise UsageError(f"a page for {result.model}", "it reads no images", "Leave out --html")
    if image is not None:
        contract = Preprocess(result.image, shorter_side=max(result.image))
        pixels = contract.fit(contract.decode(image))
    _write(path, render(result, pixels).encode())
    print(f"wrote {path}")


def _check(name: str, size: tuple[int, int] | None, as_json: bool) -> None:
    """Measure the receptive fields; exit code 1 where one is not what the closed form says."""
    from dataclasses import asdict

    from striate.anatomy.gradient import check

    found = check(_network(name), size=size)
    wrong = [item for item in found if not item.agrees]
    if as_json:
        print(
            json.dumps({"model": name, "checks": [asdict(item) | {"agrees": item.agrees} for item in found]})
        )
    else:
        for item in wrong:
            print(
                f"{item.layer}, {'rows' if item.axis == 0 else 'columns'}, unit {item.unit}: "
                f"expected {item.expected}, measured {item.measured}"
            )
        layers = len({item.layer for item in found})
        cut = sum(item.cut for item in found)
        print(
            f"{len(found) - len(wrong)} of {len(found)} fields agree with the gradients, in {layers} layers"
        )
        if cut:
            print(f"{cut} of them reach beyond the image; a larger --imgsz shows more of them")
    if wrong:
        raise typer.Exit(1)


def _effective(
    name: str, size: tuple[int, int] | None, photograph: Path, layer: str | None, out: Path, seed: int
) -> None:
    """Draw the effective receptive field of a unit in the middle of a layer."""
    import torch

    from striate.anatomy.gradient import effective_field
    from striate.anatomy.tracing import prepare
    from striate.device import seed_everything
    from striate.report import anatomy_figures
    from striate.transforms.preprocess import Preprocess

    seed_everything(seed)
    module, _, (example,) = prepare(_network(name), None, size, 1, device="cpu")
    channels, height, width = example.shape[1:]
    contract = Preprocess.for_size(max(height, width), channels)
    if height != width:
        contract = Preprocess((height, width), shorter_side=max(height, width), channels=channels)
    pixels = contract.fit(contract.decode(photograph))
    batch = contract.normalize(torch.from_numpy(pixels.copy())[None])
    heat, chosen, unit = effective_field(module, batch, layer)
    rows, columns = chosen.sees(unit)
    if rows is None or columns is None:
        raise UsageError(
            f"the field of {chosen.name}", "it is not known in closed form", "Choose another layer"
        )
    title = f"{name}, {chosen.name}, unit {unit[0]}, {unit[1]}; random weights, seed {seed}"
    anatomy_figures.save(anatomy_figures.effective_field(pixels, heat, (rows, columns), title), out)
    share = anatomy_figures.concentration(heat)
    print(f"{chosen.name}: {share:.1%} of the pixels hold 95 % of the gradient; wrote {out}")


def _plot(names: list[str], path: Path) -> None:
    """Draw published accuracy against recounted parameters and MACs."""
    from striate import facts
    from striate.anatomy import trace
    from striate.errors import unknown_name
    from striate.models import MODELS
    from striate.report import anatomy_figures

    points = []
    for name in names or [name for name in facts.TORCHVISION if name in MODELS]:
        if name not in facts.TORCHVISION or facts.V1 not in facts.TORCHVISION[name][2]:
            raise unknown_name("network with a published accuracy", name, facts.TORCHVISION)
        found = trace(name)
        points.append((name, facts.TORCHVISION[name][2][facts.V1][0], found.params, found.macs))
    anatomy_figures.save(anatomy_figures.accuracy_against_cost(points), path)
    print(f"wrote {path}")


def _write(path: Path, content: bytes) -> None:
    """Write a file aside, then put it in place."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}", error.strerror or str(error), "Choose another place"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


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
