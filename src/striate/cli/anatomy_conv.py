"""`striate anatomy conv`: a calculator for convolutions."""

from __future__ import annotations

from typing import Any

from striate.cli.console import print_json
from striate.errors import UsageError


def calculate(layer: dict[str, Any], options: dict[str, Any], bottleneck: int | None, as_json: bool) -> None:
    """Print the arithmetic of one layer, step by step.

    Args:
        layer: `size`, `kernel`, `stride`, `padding` and `dilation`.
        options: the other arguments of `striate.anatomy.explain`.
        bottleneck: channels after a 1x1 convolution in front of the layer; None for no comparison.
        as_json: print one JSON object.
    """
    from striate.anatomy import explain, receptive_field, reduction
    from striate.anatomy.table import times

    result = explain(**layer, **options)
    saved = None
    if bottleneck is not None:
        channels, filters = options["channels"], options["filters"]
        saved = reduction(result.output, channels, filters, layer["kernel"], bottleneck)
    if as_json:
        out = {"output": result.output, "params": result.params, "macs": result.macs, "steps": result.lines}
        if saved is not None:
            out["reduction"] = {"macs": saved.plain, "reduced_macs": saved.reduced}
        print_json(out)
        return
    print("\n".join(result.lines))
    if not options["transposed"]:
        _, *window = layer.values()
        field = receptive_field([window])
        first, last = field.at(0)
        print(
            f"receptive field: {field.size} pixels, from {first} to {last} for the first output; "
            f"jump {layer['stride']}"
        )
    if saved is not None:
        print(
            f"with a 1x1 bottleneck of {bottleneck} channels, on {result.output} x {result.output}: "
            f"{saved.reduced:,} MACs instead of {saved.plain:,} ({times(saved.reduced / saved.plain)})"
        )


def compare_stacks(texts: list[str], as_json: bool) -> None:
    """Print the receptive field and the parameters of stacks of kernels, such as 3x3,3x3."""
    from striate.anatomy import stack

    stacks = []
    for text in texts:
        kernels = [part.strip().lower().split("x") for part in text.split(",")]
        if not all(len(set(pair)) == 1 and len(pair) <= 2 and _is_size(pair[0]) for pair in kernels):
            raise UsageError(f"stack {text[:80]!r}", "it is not a list of square kernels", "Write 3x3,3x3")
        stacks.append(stack([int(pair[0]) for pair in kernels]))
    if as_json:
        rows = [{"kernels": s.kernels, "rf": s.rf, "weights_per_c2": s.weights} for s in stacks]
        print_json({"stacks": rows})
        return
    for each in stacks:
        terms = " + ".join(f"{kernel}²" for kernel in each.kernels)
        print(
            f"{each.name}: receptive field {each.rf} x {each.rf}, {each.weights} C² parameters "
            f"({terms}, C input and C output channels)"
        )
    first = stacks[0]
    for other in stacks[1:]:
        fields = (
            "same receptive field" if other.rf == first.rf else f"receptive field {first.rf} vs {other.rf}"
        )
        print(f"{first.name} vs {other.name}: {fields}, {first.weights / other.weights:.2f}x the parameters")


def _is_size(text: str) -> bool:
    return text.isdecimal() and len(text) < 7 and int(text) > 0
