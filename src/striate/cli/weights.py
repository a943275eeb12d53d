"""`striate weights ...`."""

from __future__ import annotations

from typing import Annotated

import typer


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
    pre = says.preprocess
    how = f"shorter side to {pre.shorter_side}, centre crop" if pre.resize == "crop" else pre.resize
    facts = {
        "file": f"{path} ({found.bytes:,} bytes)",
        "task": says.task,
        "network": f"{says.architecture} {says.arguments}",
        "values": f"{found.values:,} in {len(found.tensors)} tensors",
        "weights": f"SHA-256 {found.weights_sha256}",
        "classes": f"{len(says.classes)}: {', '.join(says.classes)}",
        "input": f"{pre.channels} channels, {pre.size[0]}x{pre.size[1]} px, {how}, {pre.interpolation}",
        "scaling": f"0 to 1, minus {list(pre.mean)}, over {list(pre.std)}",
        "measured": _flat(says.metrics),
        "made": _flat(says.provenance),
    }
    for name, text in facts.items():
        print(f"{name:9} {text}")
    if tensors:
        for name, (dtype, shape) in found.tensors.items():
            print(f"  {name:40} {dtype:5} {list(shape)}")


def _flat(values: dict[str, object], prefix: str = "") -> str:
    parts = []
    for name, value in values.items():
        if isinstance(value, dict):
            parts.append(_flat(value, f"{prefix}{name} "))
        else:
            parts.append(f"{prefix}{name} {f'{value:.6g}' if isinstance(value, float) else value}")
    return ", ".join(parts)
