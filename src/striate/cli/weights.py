"""`striate weights ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Json, Model

if TYPE_CHECKING:
    from striate.transforms.preprocess import Preprocess


_NAME = typer.Argument(metavar="NAME", help="Such as resnet50.v2, or resnet50 for its default weights.")


def _option(help: str, default: str = "", **more: Any) -> Any:
    """An option whose default of None is shown in words."""
    return typer.Option(help=help, show_default=default or False, **more)


def list_(as_json: Json = False) -> None:
    """List the published weights for Striate's networks; `*` marks the defaults.

    The source is torchvision's server, or the package to install with pip; `installed` marks those that are.

    Python: from striate.weights import CATALOG
    """
    from striate.cli.console import print_json
    from striate.weights import installed
    from striate.weights.catalog import CATALOG

    here = {name: installed.path_of(weights) is not None for name, weights in CATALOG.items()}
    if as_json:
        rows = [{**weights.to_json(), "installed": here[name]} for name, weights in CATALOG.items()]
        print_json({"weights": rows})
        return
    print(f"  {'name':22} {'top-1':>7} {'top-5':>7} {'MiB':>8}  {'input':24} {'license':13} source")
    for name, weights in CATALOG.items():
        star = "*" if weights.default else " "
        size = f"{weights.crop} px of {weights.resize}, {weights.interpolation}"
        print(
            f"{star} {name:22} {weights.top1:7.3f} {weights.top5:7.3f} {weights.mib:8.1f}  {size:24} "
            f"{weights.license:13} {weights.source}{' (installed)' if here[name] else ''}"
        )


def get(name: Annotated[str, _NAME]) -> None:
    """Download published weights into torch's cache and print the path; of installed ones, print it.

    Python: from striate.weights import download, find; download.get(find("resnet50"))
    """
    from striate.cli.console import say, watching
    from striate.weights.catalog import find

    weights = find(name)  # before torch is loaded
    from striate.weights.download import get as download

    with watching() as progress:
        path = download(weights, progress)
    say(path)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .pth or .safetensors file.")],
    model: Annotated[str | None, _option("Network.", "inferred from the tensor shapes")] = None,
    classes: Annotated[str | None, _option("Class names in output order: a,b,c or a file.")] = None,
    out: Annotated[str | None, _option("Output file.", "next to the input file")] = None,
    mean: Annotated[str | None, _option("Mean, such as 0.485,0.456,0.406, or one number.")] = None,
    std: Annotated[str | None, _option("Standard deviation, such as 0.229,0.224,0.225.")] = None,
    imgsz: Annotated[int | None, _option("Side of the input in pixels.", min=1, max=8192)] = None,
    part: Annotated[str | None, _option("Key of a nested state dict, such as model_ema.")] = None,
    as_json: Json = False,
) -> None:
    """Convert weights from torchvision or timm to a bundle (.safetensors model file).

    No code in the input file is executed.

    Python: from striate.weights import import_weights; import_weights("resnet20.pth", model="resnet20")
    """
    from striate.cli.console import print_json, say

    names, means, stds = _names(classes), _numbers("mean", mean), _numbers("std", std)
    from striate.weights import import_weights

    path, description = import_weights(
        file, out, model=model, classes=names, mean=means, std=stds, imgsz=imgsz, part=part
    )
    if as_json:
        print_json({"bundle": str(path), **description.to_json()})
        return
    say(f"{description.architecture} {description.arguments}")
    for note in description.provenance["notes"]:
        say(f"note: {note}")
    say(f"bundle: {path}")


def inspect(
    file: Model,
    tensors: Annotated[bool, typer.Option("--tensors", help="Also list every tensor.")] = False,
    as_json: Json = False,
) -> None:
    """Print the header of a bundle, without loading PyTorch or executing code in the file.

    Python: from striate import bundle; bundle.inspect("best.safetensors")
    """
    from striate import bundle
    from striate.cli.console import print_json, say

    path = bundle.path_of(file)
    found = bundle.inspect(path)
    if as_json:
        listed = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in found.tensors.items()}
        header = {
            "path": str(path), "bytes": found.bytes, "weights_sha256": found.weights_sha256,
            "parameters": found.values, "nonfinite": found.nonfinite,
        }  # fmt: skip
        print_json({**header, **found.description.to_json(), "tensors": listed})
        return
    description, classes = found.description, found.description.classes
    facts = {
        "file": f"{path} ({found.bytes:,} bytes)",
        "task": description.task,
        "network": f"{description.architecture} {description.arguments}",
        "values": f"{found.values:,} in {len(found.tensors)} tensors",
        "weights": f"SHA-256 {found.weights_sha256}",
        **({"warning": f"{found.nonfinite:,} values are NaN or infinite"} if found.nonfinite else {}),
        **(_text_facts(description.text) if description.text else {}),
        **({"classes": f"{len(classes)}: {', '.join(classes)}"} if classes else {}),
        **(_image_facts(description.preprocess) if description.preprocess else {}),
        "measured": _flat(description.metrics),
        "made": _flat(description.provenance),
    }
    for name, text in facts.items():
        say(f"{name:9} {text}")
    if tensors:
        for name, (dtype, shape) in found.tensors.items():
            say(f"  {name:40} {dtype:5} {list(shape)}")


def _image_facts(pre: Preprocess) -> dict[str, str]:
    how = f"shorter side to {pre.shorter_side}, center crop" if pre.resize == "crop" else pre.resize
    gap = f", JPEGs reduced to at least {pre.reducing_gap:g} times that" if pre.reducing_gap else ""
    return {
        "input": f"{pre.channels} channels, {pre.size[0]}x{pre.size[1]} px, {how}, {pre.interpolation}{gap}",
        "scaling": f"0 to 1, minus {list(pre.mean)}, over {list(pre.std)}",
    }


def _text_facts(text: dict[str, Any]) -> dict[str, str]:
    return {
        side: f"{text[side]['kind']}, {text['ids'][side]:,} ids"
        for side in ("source", "target")
        if text[side]
    }


def _flat(values: dict[str, object], prefix: str = "") -> str:
    return ", ".join(
        _flat(value, f"{prefix}{name} ") if isinstance(value, dict)
        else f"{prefix}{name} {value:.6g}" if isinstance(value, float)
        else f"{prefix}{name} {value}"
        for name, value in values.items()
    )  # fmt: skip


def _names(text: str | None) -> list[str] | None:
    """Class names from a text file, or separated by commas."""
    from pathlib import Path

    from striate.reading import MAX_LIST_BYTES, damage_errors, read_bytes

    if text is None:
        return None
    if not Path(text).is_file():
        return [name.strip() for name in text.split(",")]
    with damage_errors(f"cannot read --classes {text!r}", "Give a text file in UTF-8"):
        lines = read_bytes(text, MAX_LIST_BYTES).decode("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _numbers(option: str, text: str | None) -> list[float] | None:
    from striate.errors import UsageError

    if text is None:
        return None
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--{option} {text}", "expected numbers separated by commas", f"Write --{option} 0.5,0.5,0.5"
        ) from error
