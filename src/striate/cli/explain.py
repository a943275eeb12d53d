"""`striate explain`: which parts of an image speak for a class, with a test of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli import explain_text
from striate.cli.options import Device, Json, Model, Trust, number

if TYPE_CHECKING:
    from striate.explain import Explanation

_METHOD = "Method: grad-cam, layer-cam, finer-cam, integrated-gradients, smoothgrad, occlusion, rise; for \
Vision Transformers also attention-rollout and relevance."
NAMES = (
    "grad-cam", "layer-cam", "finer-cam", "integrated-gradients", "smoothgrad", "occlusion", "rise",
    "attention-rollout", "relevance",
)  # fmt: skip
_SOURCES = "Image files, folders or globs; texts for a sequence-to-sequence model of texts."
_VERSUS = "Class to compare with, for finer-cam; may be repeated."
_SAMPLES = "Passes of integrated-gradients, smoothgrad and rise."
_TEST = "Test each map with deletion and insertion curves (33 passes)."
_CHECK = "Also test whether each map depends on the weights (model randomization test)."


def explain(
    model: Model,
    sources: Annotated[list[str], typer.Argument(metavar="IMAGE", help=_SOURCES)],
    method: Annotated[str, typer.Option(help=_METHOD, autocompletion=lambda: list(NAMES))] = "grad-cam",
    target: Annotated[
        str | None, typer.Option("--class", help="Class to explain.", show_default="the most probable")
    ] = None,
    versus: Annotated[
        list[str] | None, typer.Option(help=_VERSUS, show_default="the three with the nearest scores")
    ] = None,
    samples: Annotated[
        int | None, number(_SAMPLES, low=1, high=1_000_000, show_default="32, 25 and 1000")
    ] = None,
    test: Annotated[bool, typer.Option("--test/--no-test", help=_TEST)] = True,
    check: Annotated[bool, typer.Option("--check", help=_CHECK)] = False,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("explanations"),
    numpy: Annotated[bool, typer.Option("--numpy", help="Also write each map as a .npy file.")] = False,
    device: Device = "auto",
    trust: Trust = "",
    as_json: Json = False,
) -> int:
    """Show which parts of an image speak for a class, and test whether that is true.

    Python: striate.load("runs/flowers-resnet18").explain("rose.jpg").figure().save("rose.png")
    """
    from striate import bundle
    from striate.cli.console import exit_code, print_json
    from striate.explain.methods import describe

    describe(method)  # a wrong name is reported before the model is opened
    options = {
        "method": method, "target": target, "versus": tuple(versus or ()), "samples": samples, "test": test,
        "check": check,
    }  # fmt: skip
    if bundle.describe(bundle.path_of(model)).task == "seq2seq":
        explain_text.require_no_choices({
            "--method": method != "grad-cam", "--class": target is not None, "--versus": bool(versus),
            "--samples": samples is not None, "--check": check,
        })  # fmt: skip
        found = explain_text.results(model, sources, device, test, out, numpy)
        show, done = explain_text.print_result, "sources could be explained"
    else:
        found = _results(model, sources, device, trust, options, out, numpy)
        show, done = _print, "images could be read"
    results = []
    for result in found:
        results.append(result)
        if not as_json:
            show(result)
    if as_json:
        print_json({"results": results})
    explained = any(result["error"] is None for result in results)
    return exit_code(explained, f"none of {len(results)} {done}", as_json)


def _results(
    model: str, sources: list[str], device: str, trust: str, options: dict[str, Any], out: Path, numpy: bool
) -> Iterator[dict[str, Any]]:
    """Explain each image and write its files; yields the JSON values of each."""
    from striate.cli.console import watching
    from striate.data.images.folders import find_images
    from striate.errors import DecodeError
    from striate.explain.methods import describe
    from striate.inference.classifier import load
    from striate.progress import SILENT

    paths = [path for source in sources for path in find_images(source)]
    classifier = load(model, device, trust=trust)
    with watching() as progress:
        counter = SILENT if describe(options["method"]).is_slow else progress  # slow ones report their passes
        counter.begin("explaining", len(paths))
        for path, name in zip(paths, file_names(paths, options["method"]), strict=True):
            try:
                found = classifier.explain(path, **options, progress=progress)
            except DecodeError as error:
                result: dict[str, Any] = {"path": path, "error": error.why}
            else:
                result = {**found.to_json(), "files": write_files(found, out / name, numpy)}
            counter.advance(1)
            yield result
        counter.end()


def file_names(paths: list[str], method: str) -> Iterator[str]:
    """A name for each image's files, without the suffix; images of one name get numbers."""
    taken: set[str] = set()
    for path in paths:
        stem = Path(path).stem[: explain_text.LONGEST_STEM]
        name, count = f"{stem}-{method}", 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}-{method}"
        taken.add(name)
        yield name


def write_files(explanation: Explanation, path: Path, numpy: bool) -> dict[str, str | None]:
    """Write the figure, and the map if that is wanted; returns their paths."""
    import io

    import numpy as np

    from striate.explain.drawing import png
    from striate.files import write_atomic

    figure, array = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.npy")
    write_atomic(figure, png(explanation.figure()))
    if numpy:
        content = io.BytesIO()
        np.save(content, explanation.map)
        write_atomic(array, content.getvalue())
    return {"figure": str(figure), "map": str(array) if numpy else None}


def _print(result: dict[str, Any]) -> None:
    from striate.cli.console import no_answer, percent, say

    if result["error"] is not None:
        say(f"{result['path']}  {no_answer(result['error'])}")
        return
    predicted = "" if result["predicted"] == result["class"] else f" (predicted: {result['predicted']})"
    say(f"{result['path']}  {result['class']} {percent(result['probability'])}{predicted}")
    for name, text in (("faithfulness", "map"), ("randomization", "check")):
        if result[name] is not None:
            say(f"  {text:6}  {result[name]['verdict']}")
    for path in filter(None, result["files"].values()):
        say(f"  file    {path}")
