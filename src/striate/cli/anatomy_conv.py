"""The calculator behind `striate anatomy conv`."""

from __future__ import annotations

from typing import Any

from striate.cli.console import print_json
from striate.errors import UsageError


def calculate(
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
    from striate.anatomy.table import times

    step = explain(size, kernel, stride, padding, dilation, **options)
    sight = receptive_field([(kernel, stride, padding, dilation)])
    saved = None
    if bottleneck is not None:
        saved = reduction(step.output, options["channels"], options["filters"], kernel, bottleneck)
    if as_json:
        out = {"output": step.output, "params": step.params, "macs": step.macs, "steps": step.lines}
        if saved is not None:
            out["reduction"] = {"macs": saved.plain, "reduced_macs": saved.reduced}
        print_json(out)
        return
    print("\n".join(step.lines))
    if not options["transposed"]:
        lo, hi = sight.at(0)
        print(f"a unit sees {sight.size} pixels; the first one {lo} to {hi}, the next {stride} further on")
    if saved is not None:
        print(
            f"with a 1x1 to {bottleneck} channels in front, on {step.output} x {step.output}: "
            f"{saved.reduced:,} MACs instead of {saved.plain:,} ({times(saved.reduced / saved.plain)})"
        )


def stacks(texts: list[str], as_json: bool) -> None:
    """Stacks of kernels against each other."""
    from striate.anatomy import stack

    found = []
    for text in texts:
        kernels = [part.strip().lower().split("x") for part in text.split(",")]
        if not all(len(set(pair)) == 1 and len(pair) <= 2 and pair[0].isdecimal() for pair in kernels):
            raise UsageError(f"stack {text!r}", "it is not a list of square kernels", "Write 3x3,3x3")
        found.append(stack([int(pair[0]) for pair in kernels]))
    if as_json:
        rows = [{"kernels": s.kernels, "rf": s.sight, "weights_per_c2": s.weights} for s in found]
        print_json({"stacks": rows})
        return
    for one in found:
        terms = " + ".join(f"{kernel}²" for kernel in one.kernels)
        print(
            f"{one.name}: sees {one.sight} x {one.sight}, {one.weights} C² parameters ({terms}, C in and out)"
        )
    first = found[0]
    for other in found[1:]:
        relation = "the same" if other.sight == first.sight else f"{first.sight} instead of {other.sight}"
        ratio = first.weights / other.weights
        print(f"{first.name} against {other.name}: sight {relation}, {ratio:.2f}x the parameters")
