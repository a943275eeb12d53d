"""`striate anatomy`: output size, receptive field, parameters and MACs of each layer of a network."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.anatomy_subject import MOST, find_subject
from striate.cli.console import print_json, say, watching
from striate.cli.options import Batch, Json, Trust, number
from striate.device import MAX_SEED
from striate.errors import UsageError

if TYPE_CHECKING:
    from striate.anatomy import Anatomy


def _option(help: str, *flags: str, **about: Any) -> Any:
    return typer.Option(*flags, help=help, **about)


def _calculator(help: str, *flags: str, low: int | None = None) -> Any:
    panel = "Calculator (striate anatomy conv)"
    if low is None:
        return _option(help, *flags, rich_help_panel=panel)
    return number(help, *flags, low=low, high=MOST, rich_help_panel=panel)


_NETWORKS = (
    "Name, timm:NAME, torchvision:NAME, package.module:factory, bundle (.safetensors model file), run "
    "folder, or `conv` (below)."
)
_PLOT = "Write a plot of published accuracy against parameters and MACs to this file."
_Depth = Annotated[int | None, number("Module levels to show.", low=1, high=1000, show_default="all")]
_Reduce = Annotated[int | None, _calculator("Compare with a 1x1 bottleneck with N channels.", low=1)]


def anatomy(
    models: Annotated[list[str] | None, typer.Argument(metavar="NETWORK", help=_NETWORKS)] = None,
    compare: Annotated[bool, _option("Compare several networks.", "--compare")] = False,
    imgsz: Annotated[str | None, _option("Image size: 224, or 480x640 (height x width).")] = None,
    batch: Batch = 1,
    depth: _Depth = None,
    trust: Trust = "",
    as_json: Json = False,
    as_csv: Annotated[bool, _option("Print CSV, one line per layer.", "--csv")] = False,
    as_markdown: Annotated[bool, _option("Print a Markdown table.", "--markdown")] = False,
    html: Annotated[Path | None, _option("Write an interactive page to this file.")] = None,
    image: Annotated[Path | None, _option("Photo to show on the page of --html.")] = None,
    check: Annotated[bool, _option("Verify all receptive fields with gradients.", "--check")] = False,
    erf: Annotated[Path | None, _option("Photo to draw the effective receptive field on.")] = None,
    layer: Annotated[str | None, _option("Layer for --erf.", show_default="the last feature map")] = None,
    plot: Annotated[Path | None, _option(_PLOT)] = None,
    out: Annotated[Path, _option("Output file of --erf.")] = Path("erf.png"),
    seed: Annotated[int, number("Seed for the random weights for --erf.", low=0, high=MAX_SEED)] = 0,
    size: Annotated[int, _calculator("Input size in pixels.", "--input", low=1)] = 224,
    kernel: Annotated[int, _calculator("Kernel size.", low=1)] = 3,
    stride: Annotated[int, _calculator("Stride.", low=1)] = 1,
    padding: Annotated[int, _calculator("Padding on each side.", low=0)] = 0,
    dilation: Annotated[int, _calculator("Dilation.", low=1)] = 1,
    channels: Annotated[int, _calculator("Input channels.", low=1)] = 3,
    filters: Annotated[int, _calculator("Output channels.", low=1)] = 64,
    groups: Annotated[int, _calculator("Number of groups of channels.", low=1)] = 1,
    ceil: Annotated[bool, _calculator("Use ceil_mode (pooling).", "--ceil")] = False,
    transposed: Annotated[bool, _calculator("Transposed convolution.", "--transposed")] = False,
    stack: Annotated[list[str] | None, _calculator("Stack, such as 3x3,3x3; repeat to compare.")] = None,
    reduce: _Reduce = None,
) -> None:
    """Show output size, receptive field, parameters and MACs of each layer of a network.

    Python: striate.anatomy.trace("vgg16")
    """
    form = _format({"json": as_json, "csv": as_csv, "markdown": as_markdown})
    if form != "text" and (html or erf or plot):
        raise UsageError(f"--{form} with a file", "--html, --erf and --plot print no table", "Leave one out")
    if models == ["conv"]:
        from striate.cli.anatomy_conv import calculate, compare_stacks

        window = {"size": size, "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        options = {"channels": channels, "filters": filters, "groups": groups, "ceil": ceil}
        if stack:
            compare_stacks(stack, as_json)
        else:
            calculate(window, options | {"transposed": transposed}, reduce, as_json)
    elif plot is not None:
        _plot(models or [], plot)
    elif check:
        _check(_only(models, "--check"), imgsz, as_json, trust)
    elif erf is not None:
        _effective_field(_only(models, "--erf"), imgsz, erf, layer, out, seed, trust)
    elif html is not None:
        _page(_trace(_only(models, "--html"), imgsz, batch, trust), html, image)
    else:
        if not (models and compare):
            models = [_only(models, "the table", "Name one, or several with --compare")]
        found = [_trace(name, imgsz, batch, trust) for name in models]
        _print(found, compare, depth, form)


def _format(flags: dict[str, bool]) -> str:
    """The chosen output format; text by default."""
    chosen = [name for name, is_chosen in flags.items() if is_chosen]
    if len(chosen) > 1:
        together = " and ".join(f"--{name}" for name in chosen)
        raise UsageError(f"{together} together", "they are alternative output formats", "Choose one")
    return chosen[0] if chosen else "text"


def _only(models: list[str] | None, what: str, fix: str = "Name one network") -> str:
    """The one network that a flag or the table applies to."""
    names = models or []
    if len(names) != 1:
        raise UsageError(f"{what} with {len(names)} networks", "it applies to one network", fix)
    return names[0]


def _trace(name: str, imgsz: str | None, batch: int, trust: str) -> Anatomy:
    from striate.anatomy import trace

    subject = find_subject(name, imgsz, trust)
    return replace(trace(subject.network, size=subject.size, batch=batch), model=name)


def _print(found: list[Anatomy], compare: bool, depth: int | None, form: str) -> None:
    """Print a table or a comparison."""
    from striate.anatomy import table

    if form == "json":
        print_json(table.compare(found) if compare else table.to_dict(found[0], depth))
    elif compare:
        print(table.compare_text(found))
    elif form == "csv":
        print(table.to_csv(found[0], depth), end="")
    elif form == "markdown":
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
        raise UsageError(
            f"no page for {result.model}", "the page is for networks that read images", "Leave out --html"
        )
    if image is not None:
        preprocess = Preprocess(result.image, shorter_side=max(result.image))
        pixels = preprocess.fit(preprocess.decode(image))
    write_atomic(path, render(result, pixels).encode())
    say(f"wrote {path}")


def _check(name: str, imgsz: str | None, as_json: bool, trust: str) -> None:
    """Check the receptive fields against gradients; exit code 1 if one differs."""
    from dataclasses import asdict

    from striate.anatomy import check

    subject = find_subject(name, imgsz, trust)
    with watching() as progress:
        checks = check(subject.network, size=subject.size, progress=progress)
    wrong = [item for item in checks if not item.agrees]
    if as_json:
        print_json({"model": name, "checks": [asdict(item) | {"agrees": item.agrees} for item in checks]})
    else:
        for item in wrong:
            print(
                f"{item.layer}, {'rows' if item.axis == 0 else 'columns'}, unit {item.unit}: "
                f"expected {item.expected}, measured {item.measured}"
            )
        layers = len({item.layer for item in checks})
        print(
            f"{len(checks) - len(wrong)} of {len(checks)} receptive fields agree with the gradients, "
            f"in {layers} layers"
        )
        if cut := sum(item.cut for item in checks):
            print(f"{cut} of them extend beyond the image; use a larger --imgsz to check more of them fully")
    if wrong:
        raise typer.Exit(1)


def _effective_field(
    name: str, imgsz: str | None, photo: Path, layer: str | None, out: Path, seed: int, trust: str
) -> None:
    """Draw the effective receptive field of the middle unit of a layer."""
    import torch

    from striate.anatomy import effective_field
    from striate.anatomy.tracing import prepare, require_memory
    from striate.device import seed_everything
    from striate.report import anatomy_figures
    from striate.transforms.preprocess import Preprocess

    seed_everything(seed)
    subject = find_subject(name, imgsz, trust)
    module, _, (example,) = prepare(subject.network, None, subject.size, 1, device="cpu")
    preprocess = subject.preprocess or Preprocess.for_size(224, example.shape[1])
    require_memory(module, (example,))  # here too: the photo is resized to this size first
    height, width = example.shape[2:]
    preprocess = replace(preprocess, size=(height, width), shorter_side=max(height, width))
    pixels = preprocess.fit(preprocess.decode(photo))
    batch = preprocess.normalize(torch.from_numpy(pixels.copy())[None])
    heat, chosen, unit = effective_field(module, batch, layer)
    rows, columns = chosen.sees(unit)
    if rows is None or columns is None:
        why = "an operator before it has no closed form"
        raise UsageError(f"no receptive field of {chosen.name}", why, "Choose an earlier layer")
    weights = "trained weights" if subject.preprocess else f"random weights, seed {seed}"
    title = f"{Path(name).name}, {chosen.name}, unit {unit[0]}, {unit[1]}; {weights}"
    anatomy_figures.save(anatomy_figures.effective_field(pixels, heat, (rows, columns), title), out)
    share = anatomy_figures.concentration(heat)
    say(f"{chosen.name}: {share:.1%} of the pixels hold 95 % of the gradient; wrote {out}")


def _plot(names: list[str], path: Path) -> None:
    """Plot published accuracy against parameters and MACs."""
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
    say(f"wrote {path}")
