"""`striate explore`: what a classifier has learned, seen through its filters and through images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Device, Json, Model, Trust, number
from striate.errors import UsageError

if TYPE_CHECKING:
    from striate.inference.exploration import Example, Explorer

_DATA = "Images, as for `train`; by default the training images of the model's run."
Data = Annotated[str | None, typer.Argument(metavar="DATA", help=_DATA, show_default=False)]
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file.")]
Count = Annotated[int, number("Number of images.", low=1, high=4096)]
Split = Annotated[str, typer.Option(help="Split: train, val, test or all; auto is train if there is one.")]
Sheet = Annotated[Path, typer.Option(help="PNG file to write.")]
_KINDS = ("prototypes", "criticisms")


def filters(
    model: Model,
    layer: Annotated[str | None, typer.Option(help="Convolution.", show_default="the first one")] = None,
    out: Sheet = Path("filters.png"),
    device: Device = "cpu",
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Draw the filters of a convolution as images; of many, the first 4,096.

    Python: striate.explain.filters(striate.load("runs/flowers-resnet18").network)
    """
    from striate.explain.channels import filters as filters_of
    from striate.explain.drawing import MAX_CELLS, tiles
    from striate.inference.classifier import load

    name, values = filters_of(load(model, device, trust=trust).network, layer)
    _write(out, tiles(values[:MAX_CELLS]))
    _report({"layer": name, "filters": len(values), "size": list(values.shape[1:3])}, out, as_json,
            [f"{name}: {len(values)} filters of {values.shape[1]}x{values.shape[2]}"])  # fmt: skip


def maps(
    model: Model,
    image: Image,
    layer: Annotated[str | None, typer.Option(help="Layer.", show_default="the first convolution")] = None,
    out: Sheet = Path("maps.png"),
    device: Device = "auto",
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Draw the feature maps of a layer for one image.

    Python: striate.load("runs/flowers-resnet18").feature_maps("rose.jpg", "layer1")
    """
    from striate.explain.channels import filters as filters_of
    from striate.explain.drawing import MAX_CELLS, tiles
    from striate.inference.classifier import load

    classifier = load(model, device, trust=trust)
    name = layer if layer is not None else filters_of(classifier.network)[0]
    values = classifier.feature_maps(image, name)
    _write(out, tiles(values[:MAX_CELLS]))
    rows, columns = values.shape[1:]
    found = {
        "layer": name,
        "maps": len(values),
        "size": [rows, columns],
        "max": values.max(axis=(1, 2)).tolist(),
    }
    _report(found, out, as_json, [f"{name}: {len(values)} maps of {rows}x{columns}"])


def channel(
    model: Model,
    unit: Annotated[str, typer.Argument(metavar="LAYER:INDEX", help="A channel, such as layer4:17.")],
    data: Data = None,
    count: Count = 16,
    split: Split = "auto",
    out: Sheet = Path("channel.png"),
    device: Device = "auto",
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Find the images that activate a channel most, and draw the patches that it sees.

    Python: Explorer(striate.load("runs/flowers-resnet18"), "flowers/").top_images("layer4", 17)
    """
    parts = re.fullmatch(r"(.+):([0-9]{1,9})", unit)
    if parts is None:
        raise UsageError(f"channel {unit[:80]!r}", "it is not LAYER:INDEX", "Give one such as layer4:17")
    layer, index = parts[1], int(parts[2])
    found = _explore(model, data, split, device, trust, lambda e: e.top_images(layer, index, count))
    _report_images({"layer": layer, "channel": index}, found, out, as_json)


def nearest(
    model: Model,
    image: Image,
    data: Data = None,
    count: Count = 8,
    split: Split = "auto",
    out: Sheet = Path("nearest.png"),
    device: Device = "auto",
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Find the training images that the network finds most similar to an image, but for that image itself.

    Python: Explorer(striate.load("runs/flowers-resnet18"), "flowers/").nearest("rose.jpg")
    """
    found = _explore(model, data, split, device, trust, lambda explorer: explorer.nearest(image, count))
    _report_images({"path": image}, found, out, as_json)


def prototypes(
    model: Model,
    data: Data = None,
    name: Annotated[
        list[str] | None, typer.Option("--class", help="Class; may be repeated.", show_default="all")
    ] = None,
    count: Count = 5,
    split: Split = "auto",
    out: Sheet = Path("prototypes.png"),
    device: Device = "auto",
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Find the images that stand for each class, and those that they do not stand for (criticisms).

    In the figure each class has a row of prototypes and, below it, a row of criticisms.

    Python: Explorer(striate.load("runs/flowers-resnet18"), "flowers/").prototypes("rose")
    """
    from striate.explain.drawing import png, require_few, stacked
    from striate.files import write_atomic

    def choose(explorer: Explorer) -> dict[str, tuple[list[Example], list[Example]]]:
        names = name or explorer.classes
        # A figure that is too large is refused before all images go through the network.
        require_few(len(_KINDS) * len(names) * min(count, len(explorer)))
        return {key: explorer.prototypes(key, count) for key in names}

    chosen = _explore(model, data, split, device, trust, choose)
    rows, lines, values = [], [], {}
    for key, both in chosen.items():
        lines.append(f"{key}:")
        values[key] = {kind: [e.to_json() for e in part] for kind, part in zip(_KINDS, both, strict=True)}
        for kind, part in zip(_KINDS, both, strict=True):
            rows.append([example.pixels for example in part])
            lines += [f"  {kind[:-1]:9}  {example.path}" for example in part]
    write_atomic(out, png(stacked(rows)))
    _report({"classes": values}, out, as_json, lines)


def _explore(model: str, data: str | None, split: str, device: str, trust: str, ask: Any) -> Any:
    """Open the model and the data, and ask the explorer."""
    from striate.cli.console import watching
    from striate.inference.classifier import load
    from striate.inference.exploration import Explorer

    classifier = load(model, device, trust=trust)
    with watching() as progress:
        return ask(Explorer(classifier, data, split=split, progress=progress))


def _write(out: Path, images: Any) -> None:
    from striate.explain.drawing import png, sheet
    from striate.files import write_atomic

    write_atomic(out, png(sheet(images)))


def _report_images(values: dict[str, Any], found: list[Example], out: Path, as_json: bool) -> None:
    """Write and report examples with the value of each."""
    _write(out, [example.pixels for example in found])
    lines = [f"{e.value:10.4f}  {e.label}  {e.path}" for e in found]
    _report({**values, "images": [example.to_json() for example in found]}, out, as_json, lines)


def _report(values: dict[str, Any], out: Path, as_json: bool, lines: list[str]) -> None:
    from striate.cli.console import print_json, say

    if as_json:
        print_json({**values, "out": str(out)})
        return
    for line in [*lines, f"file  {out}"]:
        say(line)
