"""`striate anatomy`: what every layer of a network does to size, sight and cost."""

from __future__ import annotations

import importlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.console import print_json, watching
from striate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from striate.anatomy import Anatomy
    from striate.transforms.preprocess import Preprocess

CALCULATOR = "Calculator (striate anatomy conv)"


def anatomy(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="A network's name, a bundle, or package.module:factory; `conv` for the calculator."
        ),
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
        from striate.cli.anatomy_conv import calculate, stacks

        if stack:
            stacks(stack, as_json)
        else:
            options = {"channels": channels, "filters": filters, "groups": groups}
            options |= {"ceil": ceil, "transposed": transposed}
            calculate(size, kernel, stride, padding, dilation, options, reduce, as_json)
        return
    if (check or erf is not None) and len(models) > 1:
        raise UsageError("--check or --erf of several networks", "each takes one", "Name one network")
    if check:
        _check(models[0], imgsz, as_json)
        return
    if erf is not None:
        _effective(models[0], imgsz, erf, layer, out, seed)
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
        subject = _subject(name, imgsz)
        found.append(replace(trace(subject.network, size=subject.size, batch=batch), model=name))
    if html is not None:
        _page(found[0], html, image)
        return
    if as_json:
        print_json(table.compare(found) if compare else table.to_dict(found[0], depth))
    elif compare:
        print(table.compare_text(found))
    elif as_csv:
        print(table.to_csv(found[0], depth), end="")
    elif as_markdown:
        print(table.to_markdown(found[0], depth))
    else:
        print(table.to_text(found[0], shutil.get_terminal_size((120, 24)).columns, depth))


def _page(result: Anatomy, path: Path, image: Path | None) -> None:
    """Write the interactive page."""
    from striate.files import write_atomic
    from striate.report.anatomy_page import render
    from striate.transforms.preprocess import Preprocess

    pixels = None
    if len(result.image) != 2:
        raise UsageError(f"a page for {result.model}", "it reads no images", "Leave out --html")
    if image is not None:
        contract = Preprocess(result.image, shorter_side=max(result.image))
        pixels = contract.fit(contract.decode(image))
    write_atomic(path, render(result, pixels).encode())
    print(f"wrote {path}")


def _check(name: str, imgsz: str | None, as_json: bool) -> None:
    """Measure the receptive fields; exit code 1 where one is not what the closed form says."""
    from dataclasses import asdict

    from striate.anatomy import check

    subject = _subject(name, imgsz)
    with watching() as progress:
        found = check(subject.network, size=subject.size, progress=progress)
    wrong = [item for item in found if not item.agrees]
    if as_json:
        print_json({"model": name, "checks": [asdict(item) | {"agrees": item.agrees} for item in found]})
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
    name: str, imgsz: str | None, photograph: Path, layer: str | None, out: Path, seed: int
) -> None:
    """Draw the effective receptive field of a unit in the middle of a layer."""
    import torch

    from striate.anatomy import effective_field
    from striate.anatomy.tracing import prepare
    from striate.device import seed_everything
    from striate.report import anatomy_figures
    from striate.transforms.preprocess import Preprocess

    seed_everything(seed)
    subject = _subject(name, imgsz)
    module, _, (example,) = prepare(subject.network, None, subject.size, 1, device="cpu")
    contract = subject.preprocess or Preprocess.for_size(224, example.shape[1])
    height, width = example.shape[2:]
    contract = replace(contract, size=(height, width), shorter_side=max(height, width))
    pixels = contract.fit(contract.decode(photograph))
    batch = contract.normalize(torch.from_numpy(pixels.copy())[None])
    heat, chosen, unit = effective_field(module, batch, layer)
    rows, columns = chosen.sees(unit)
    if rows is None or columns is None:
        raise UsageError(
            f"the field of {chosen.name}", "it is not known in closed form", "Choose another layer"
        )
    weights = "trained weights" if subject.preprocess else f"weights of seed {seed}"
    title = f"{Path(name).name}, {chosen.name}, unit {unit[0]}, {unit[1]}; {weights}"
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


@dataclass(frozen=True)
class _Subject:
    """What an argument stands for: a name or a module, its image size, and a bundle's preprocessing."""

    network: str | nn.Module
    size: tuple[int, int] | None
    preprocess: Preprocess | None = None


def _subject(name: str, imgsz: str | None) -> _Subject:
    """The network that an argument stands for: a name, a bundle or run's folder, or a factory.

    Raises:
        UsageError: there is none.
        BundleError: a file that is no bundle.
    """
    from striate.models import MODELS

    size = _size(imgsz)
    if name not in MODELS and (name.endswith(".safetensors") or Path(name).is_dir()):
        from striate.inference.classifier import load

        classifier = load(name, "cpu")
        return _Subject(classifier.network, size or classifier.preprocess.size, classifier.preprocess)
    if ":" in name:
        return _Subject(_made(*name.rsplit(":", 1)), size)
    return _Subject(name, size)  # `trace` knows the names, and near ones


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
