"""`striate weights ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from striate.transforms.preprocess import Preprocess


def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the weights that torchvision publishes for Striate's networks; a star marks the usual ones.

    Python: striate.weights.CATALOG
    """
    from striate.cli.console import print_json
    from striate.weights.catalog import CATALOG

    if as_json:
        print_json({"weights": [weights.to_json() for weights in CATALOG.values()]})
        return
    print(f"  {'name':22} {'top-1':>7} {'top-5':>7} {'MiB':>8}  input")
    for weights in CATALOG.values():
        star = "*" if weights.default else " "
        print(
            f"{star} {weights.name:22} {weights.top1:7.3f} {weights.top5:7.3f} {weights.mib:8.1f}  "
            f"{weights.crop} px of {weights.resize}, {weights.interpolation}"
        )


def get(
    name: Annotated[
        str,
        typer.Argument(help="As resnet50.v2, or resnet50 for the usual ones.", show_default=False),
    ],
) -> None:
    """Download official weights into torch's cache, and print where they are.

    Python: striate.weights.download.get(striate.weights.find("resnet50"))
    """
    from striate.cli.console import watching
    from striate.weights.catalog import find

    weights = find(name)  # before torch is loaded
    from striate.weights.download import get as download

    with watching() as progress:
        path = download(weights, progress)
    print(path)


def import_(
    file: Annotated[str, typer.Argument(help=".pth of either format, or .safetensors.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Architecture; found by the shapes if left out.", show_default=False)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Names in the order of the scores: a,b,c or a file of lines.", show_default=False),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="The bundle; beside the file if left out.", show_default=False)
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="As 0.485,0.456,0.406, or one number.", show_default=False)
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="As 0.229,0.224,0.225, or one number.", show_default=False)
    ] = None,
    imgsz: Annotated[
        int | None, typer.Option(help="Side of the input in pixels.", min=1, show_default=False)
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Which weights of a nested file, as model_ema.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a bundle of weights that others wrote, from any device, running nothing in them.

    Python: striate.weights.import_weights("resnet20.pth", model="resnet20")
    """
    from striate import models
    from striate.cli.console import print_json

    if model is not None:
        models.describe(model)
    names, means, stds = _names(classes), _numbers("mean", mean), _numbers("std", std)
    from striate.weights import import_weights

    path, says = import_weights(
        file, out, model=model, classes=names, mean=means, std=stds, imgsz=imgsz, part=part
    )
    if as_json:
        print_json({"bundle": str(path), **says.to_json()})
        return
    print(f"{says.architecture} {says.arguments}")
    for note in says.provenance["notes"]:
        print(f"note: {note}")
    print(f"bundle: {path}")


def export(
    file: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    out: Annotated[str, typer.Option(help="The .pth file.", show_default=False)],
) -> None:
    """Write a bundle's weights as a plain state dict, which torch.load and torchvision read.

    Python: striate.weights.export_weights("best.safetensors", "resnet18.pth")
    """
    from striate.weights import export_weights

    keys = export_weights(file, out)
    print(f"{len(keys)} tensors, {keys[0]} to {keys[-1]}")
    print(f"state dict: {out}")


def inspect(
    file: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what a model file says of itself, without loading torch or running anything in it.

    Python: striate.bundle.inspect("best.safetensors")
    """
    from striate import bundle
    from striate.cli.console import print_json

    path = bundle.path_of(file)
    found = bundle.inspect(path)
    if as_json:
        print_json(
            {
                "path": str(path),
                "bytes": found.bytes,
                "weights_sha256": found.weights_sha256,
                "parameters": found.values,
                **found.description.to_json(),
                "tensors": {
                    name: {"dtype": dtype, "shape": list(shape)}
                    for name, (dtype, shape) in found.tensors.items()
                },
            }
        )
        return
    says = found.description
    facts = {
        "file": f"{path} ({found.bytes:,} bytes)",
        "task": says.task,
        "network": f"{says.architecture} {says.arguments}",
        "values": f"{found.values:,} in {len(found.tensors)} tensors",
        "weights": f"SHA-256 {found.weights_sha256}",
        **(_text_facts(says.text) if says.text else {}),
        **({"classes": f"{len(says.classes)}: {', '.join(says.classes)}"} if says.classes else {}),
        **(_image_facts(says.preprocess) if says.preprocess else {}),
        "measured": _flat(says.metrics),
        "made": _flat(says.provenance),
    }
    for name, text in facts.items():
        print(f"{name:9} {text}")
    if tensors:
        for name, (dtype, shape) in found.tensors.items():
            print(f"  {name:40} {dtype:5} {list(shape)}")


def _image_facts(pre: Preprocess) -> dict[str, str]:
    how = f"shorter side to {pre.shorter_side}, centre crop" if pre.resize == "crop" else pre.resize
    return {
        "input": f"{pre.channels} channels, {pre.size[0]}x{pre.size[1]} px, {how}, {pre.interpolation}",
        "scaling": f"0 to 1, minus {list(pre.mean)}, over {list(pre.std)}",
    }


def _text_facts(text: dict[str, Any]) -> dict[str, str]:
    return {
        side: f"{text[side]['kind']}, {text['ids'][side]:,} ids"
        for side in ("source", "target")
        if text[side]
    }


def _flat(values: dict[str, object], prefix: str = "") -> str:
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            parts.append(_flat(value, f"{prefix}{name} "))
        else:
            parts.append(f"{prefix}{name} {f'{value:.6g}' if isinstance(value, float) else value}")
    return ", ".join(parts)


def _names(text: str | None) -> list[str] | None:
    """Class names from a file of lines, or between commas."""
    from pathlib import Path

    from striate.errors import UsageError

    if text is None:
        return None
    if not Path(text).is_file():
        return [name.strip() for name in text.split(",")]
    try:
        lines = Path(text).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read --classes {text!r}", str(error), "Give a text file in UTF-8"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _numbers(option: str, text: str | None) -> list[float] | None:
    from striate.errors import UsageError

    if text is None:
        return None
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--{option} {text}", "it must be numbers between commas", f"Write --{option} 0.5,0.5,0.5"
        ) from error
