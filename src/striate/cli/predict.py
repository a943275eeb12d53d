"""`striate predict`: classify images, or recognize the text in them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from striate.cli.evaluate import TTA
from striate.cli.explain import file_names, write_files
from striate.cli.options import Batch, Device, Json, Model, Trust, Workers, number
from striate.csv_file import csv_line
from striate.printable import escaped

if TYPE_CHECKING:
    from striate.inference.prediction import Prediction
    from striate.progress import Progress

_SOURCES = (
    "Image files, folders or globs; `-` reads paths from standard input, one per line or separated by NUL "
    "(`find -print0`)."
)
_COVERAGE = "Also give the set of classes that holds the right one with this probability, such as 0.95."
_RAW = "Divide the scores by the temperature of the model, if it is calibrated."

_ENGINE = (
    "What runs the network: torch; onnxruntime, with an export that is kept in the cache; or auto: an export "
    "that is in the cache already if the model runs on the CPU, and torch otherwise."
)


def _engines() -> list[str]:
    from striate.exporters.engines import ENGINES

    return list(ENGINES)


class _Wanted(NamedTuple):
    """What to say: number of classes, coverage of sets, calibrated or not, folder, augmentation, engine."""

    top: int
    coverage: float | None
    calibration: bool
    out: Path | None
    tta: str | None
    engine: str


_EXPLAIN = (
    "Also write a PNG file for each image: the image next to Grad-CAM's map of the most probable class."
)


class _Result(NamedTuple):
    """The answer for one image: its JSON keys, its CSV cells, and a text."""

    path: str
    error: str | None
    values: dict[str, Any]
    cells: list[Any]
    text: str


def predict(
    model: Model,
    sources: Annotated[list[str], typer.Argument(metavar="IMAGE", help=_SOURCES)],
    top: Annotated[int, number("Number of classes to show.", "--top", "-k", low=1, high=1_000_000)] = 5,
    batch: Batch = 64,
    device: Device = "auto",
    workers: Workers = None,
    engine: Annotated[str, typer.Option(help=_ENGINE, autocompletion=_engines)] = "auto",
    trust: Trust = "",
    explain: Annotated[bool, typer.Option("--explain", help=_EXPLAIN)] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --explain: folder of the files.", show_default="explanations")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option("--coverage", help=_COVERAGE, min=0.01, max=0.9999, show_default=False)
    ] = None,
    calibration: Annotated[bool, typer.Option("--calibration/--no-calibration", help=_RAW)] = True,
    tta: Annotated[str | None, typer.Option("--tta", help=TTA, show_default="none")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> int:
    """Classify images, or recognize the text in them. If an image cannot be read, the reason is printed.

    Python: striate.load("runs/flowers-resnet18").predict("rose.jpg").top(5)
    """
    from striate import bundle
    from striate.data.images.folders import find_images
    from striate.errors import UsageError

    if as_json and as_csv:
        raise UsageError("--json and --csv", "the output has one format", "Give one of the two")
    _require_explained(explain, out, tta)
    paths = [path for source in sources for path in (_listed() if source == "-" else find_images(source))]
    if not paths:
        raise UsageError("no images to predict", "the list on standard input is empty")
    task = "classification"
    if not bundle.is_onnx(model):
        task = bundle.describe(bundle.path_of(model)).task  # reports a wrong file before torch is imported

    from striate.cli.console import exit_code, print_json, watching

    with watching() as progress:
        if task == "seq2seq":
            _refuse_with_text(explain, tta, engine)
            header, results, more = _read_text(model, paths, device, progress)
        else:
            folder = (out or Path("explanations")) if explain else None
            if explain and engine == "auto" and not bundle.is_onnx(model):
                engine = "torch"  # not every export has maps
            wanted = _Wanted(top, coverage, calibration, folder, tta, engine)
            header, results, more = _classify(model, paths, device, progress, wanted, batch, workers, trust)
        if as_json or sys.stdout.isatty():  # print results after the progress bar, not through it
            results = list(results)
            progress.end()
        if as_json:
            print_json({"results": [{"path": r.path, "error": r.error, **r.values} for r in results], **more})
            readable = any(result.error is None for result in results)
        else:
            readable = _print(results, header if as_csv else None, min(60, max(map(len, paths))))
    return exit_code(readable, f"none of {len(paths)} images could be read", as_json)


def _require_explained(explain: bool, out: Path | None, tta: str | None) -> None:
    """Refuse a folder without explanations, and explanations of several versions of an image."""
    from striate.errors import UsageError

    if out is not None and not explain:
        raise UsageError("--out without --explain", "only explanations are written to files", "Add --explain")
    if explain and tta is not None:
        why = "a map explains one version of an image"
        raise UsageError(f"--explain with --tta {tta}", why, "Leave one of them out")


def _refuse_with_text(explain: bool, tta: str | None, engine: str) -> None:
    """Refuse what a model that recognizes text cannot do."""
    from striate.errors import UsageError

    if explain or tta:
        what = "--explain" if explain else "--tta"
        fix = "Use `striate explain`" if explain else "Leave it out"
        raise UsageError(f"{what} with a seq2seq model", "it has no classes", fix)
    if engine not in ("auto", "torch"):
        raise UsageError(f"--engine {engine} with a seq2seq model", "it runs in torch", "Leave it out")


def _listed() -> list[str]:
    """The paths on standard input. Lists of names that may contain line breaks are separated by NUL."""
    if sys.stdin is None:
        return []
    binary = getattr(sys.stdin, "buffer", None)
    data: bytes = binary.read() if binary else sys.stdin.read().encode("utf-8", "surrogateescape")
    if b"\0" in data:
        return [os.fsdecode(name) for name in data.split(b"\0") if name]
    lines = (line for line in data.split(b"\n") if line.strip())
    # Windows ends lines with CR LF, and a file name may end with CR.
    paths = (line if os.path.lexists(line) else line.removesuffix(b"\r") for line in lines)
    return [os.fsdecode(path) for path in paths]


def _print(results: Iterable[_Result], header: list[str] | None, width: int) -> bool:
    """Print a line per image, or CSV if there is a header; returns whether any image could be read."""
    from striate.cli.console import no_answer, say

    readable = False
    if header is not None:
        print(csv_line(["path", "error", *header]))
    for result in results:
        readable |= result.error is None
        if header is not None:
            missing = [""] * (len(header) - len(result.cells))
            print(csv_line([result.path, result.error, *result.cells, *missing]))
        else:
            text = no_answer(result.error) if result.error else result.text
            say(f"{escaped(result.path):{width}}  {text}")
    return readable


def _classify(
    model: str,
    paths: list[str],
    device: str,
    progress: Progress,
    wanted: _Wanted,
    batch: int,
    workers: int | None,
    trust: str,
) -> tuple[list[str], Iterable[_Result], dict[str, Any]]:
    """The CSV header, the results, and further JSON keys."""
    from striate.device import cpu_count
    from striate.exporters.engines import load
    from striate.inference.prediction import require_calibration

    classifier = load(model, device, engine=wanted.engine, trust=trust)
    classifier = classifier if wanted.calibration else classifier.uncalibrated()
    if wanted.coverage is not None:
        require_calibration(classifier.description.calibration).threshold(wanted.coverage)
    options: Any = {"batch": batch, "workers": workers or cpu_count(), "progress": progress}

    def results() -> Iterator[_Result]:
        if (out := wanted.out) is None:
            for prediction in classifier.predict_many(paths, tta=wanted.tta, **options):
                yield _of_prediction(prediction, wanted)
            return
        explained = classifier.explain_many(paths, **options)
        for name, (prediction, explanation) in zip(file_names(paths, "grad-cam"), explained, strict=True):
            files = write_files(explanation, out / name, numpy=False) if explanation else {"figure": None}
            result, figure = _of_prediction(prediction, wanted), files["figure"]
            yield result._replace(
                values={**result.values, "figure": figure},
                cells=[*result.cells, figure],
                text=f"{result.text}  {escaped(figure or '')}",
            )

    progress.begin("predicting", len(paths))
    shown = range(1, min(wanted.top, len(classifier.classes)) + 1)
    header = [] if wanted.coverage is None else ["set"]
    header += ["labels"] if classifier.description.is_multi_label else []
    header += [f"{what}{i}" for i in shown for what in ("class", "probability")]
    has_marks = not (wanted.out or wanted.tta) and classifier.unknown_inputs is not None
    header += ["unknown"] if has_marks else []
    more = {} if wanted.coverage is None else {"coverage": wanted.coverage}
    return header + (["figure"] if wanted.out else []), results(), more


def _of_prediction(prediction: Prediction, wanted: _Wanted) -> _Result:
    scores = prediction.top(wanted.top)
    values: dict[str, Any] = {"top": [{"class": s.name, "probability": s.probability} for s in scores]}
    cells: list[Any] = [value for s in scores for value in (s.name, f"{s.probability:.6f}")]
    shown = scores if prediction.thresholds is None else prediction.labels
    if prediction.thresholds is not None:
        values["labels"] = [{"class": s.name, "probability": s.probability} for s in shown]
        cells = [";".join(s.name for s in shown), *cells]
    text = "  ".join(f"{s.name} {100 * s.probability:.1f} %" for s in shown)
    if wanted.coverage is not None:
        names = prediction.set(wanted.coverage)
        values["set"] = list(names)
        cells = [] if prediction.error else ["|".join(names), *cells]
        text += f"  set: {', '.join(names) or 'empty'}"
    text = text or "no class reaches its threshold"
    if prediction.unknown:
        text += "  unlike the training images"
    if prediction.unknown is not None:
        values["unknown"] = prediction.unknown
        cells.append("unknown" if prediction.unknown else "")
    return _Result(prediction.path, prediction.error, values, cells, text)


def _read_text(
    model: str, paths: list[str], device: str, progress: Progress
) -> tuple[list[str], Iterable[_Result], dict[str, Any]]:
    """The CSV header, the results, and further JSON keys."""
    from striate.errors import BundleError
    from striate.inference.translator import load_translator, warnings_of

    translator = load_translator(model, device)
    if not translator.reads_images:
        raise BundleError(
            f"{model!r} does not read images", "it was trained on text", "Use `striate seq2seq translate`"
        )
    progress.begin("reading", len(paths))
    done = translator.translate(paths, progress=progress)
    progress.end()
    results = (
        _Result(
            r.source,
            r.error,
            {"text": r.text if r.answers else None, "cut": r.cut},
            [r.text, "cut" if r.cut else ""],
            f"{r.text} [cut]" if r.cut else r.text,
        )
        for r in done.results
    )
    for warning in warnings_of(done.results):
        progress.warn(warning)
    return ["text", "cut"], results, {"tokens_per_second": done.tokens_per_second}
