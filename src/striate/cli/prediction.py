"""What `striate predict` does with its arguments. This module does not import the parser of command lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from striate.csv_file import csv_line
from striate.errors import UsageError
from striate.files import expanded
from striate.kernels.preload import without_garbage_collection
from striate.printable import escaped

if TYPE_CHECKING:
    from striate.inference.prediction import Prediction
    from striate.progress import Progress


class Wanted(NamedTuple):
    """The options of the command."""

    top: int = 5
    batch: int = 64
    device: str = "auto"
    workers: int | None = None
    engine: str = "auto"
    trust: str = ""
    explain: bool = False
    out: Path | None = None
    coverage: float | None = None
    calibration: bool = True
    tta: str | None = None
    as_json: bool = False
    as_csv: bool = False


class _Result(NamedTuple):
    """The answer for one image: its JSON keys, its CSV cells, and a text."""

    path: str
    error: str | None
    values: dict[str, Any]
    cells: list[Any]
    text: str


def predict(model: str, sources: Sequence[str], wanted: Wanted) -> int:
    """Run the command; returns the exit code."""
    with without_garbage_collection():
        from striate import bundle
        from striate.cli.console import exit_code, print_json, watching

    if wanted.as_json and wanted.as_csv:
        raise UsageError("--json and --csv", "the output has one format", "Give one of the two")
    if wanted.coverage is not None:
        _require_sets(wanted.coverage, wanted.calibration)
    _require_explained(wanted.explain, wanted.out, wanted.tta)
    paths = [path for source in sources for path in (_listed() if source == "-" else _found(source))]
    if not paths:
        raise UsageError("no images to predict", "the list on standard input is empty")
    task = "classification"
    if not bundle.is_onnx(model):
        task = bundle.describe(bundle.path_of(model)).task  # reports a wrong file before torch is imported

    with watching() as progress:
        if task == "seq2seq":
            _refuse_with_text(wanted.explain, wanted.tta, wanted.engine)
            header, results, more = _read_text(model, paths, wanted.device, progress)
        else:
            if wanted.explain:
                wanted = wanted._replace(out=wanted.out or Path("explanations"))
                if wanted.engine == "auto" and not bundle.is_onnx(model):
                    wanted = wanted._replace(engine="torch")  # not every export has maps
            header, results, more = _classify(model, paths, progress, wanted)
        if wanted.as_json or sys.stdout.isatty():  # print results after the progress bar, not through it
            results = list(results)
            progress.end()
        if wanted.as_json:
            print_json({"results": [{"path": r.path, "error": r.error, **r.values} for r in results], **more})
            readable = any(result.error is None for result in results)
        else:
            readable = _print(results, header if wanted.as_csv else None, min(60, max(map(len, paths))))
    return exit_code(readable, f"none of {len(paths)} images could be read", wanted.as_json)


def _found(source: str) -> list[str]:
    """The images that an argument names. A file is one; other arguments need all formats of data."""
    path = expanded(source)
    if path.is_file():
        return [str(path)]
    from striate.data.images.folders import find_images

    return find_images(source)


def _require_sets(coverage: float, calibration: bool) -> None:
    """Refuse a coverage that is no share, and one without the calibration that it comes from."""
    from striate.bundle.calibration import require_coverage

    require_coverage(coverage)
    if not calibration:
        why = "prediction sets come from the calibration"
        raise UsageError(f"--coverage {coverage:g} with --no-calibration", why, "Leave one of them out")


def _require_explained(explain: bool, out: Path | None, tta: str | None) -> None:
    """Refuse a folder without explanations, and explanations of several versions of an image."""
    if out is not None and not explain:
        raise UsageError("--out without --explain", "only explanations are written to files", "Add --explain")
    if explain and tta is not None:
        why = "a map explains one version of an image"
        raise UsageError(f"--explain with --tta {tta}", why, "Leave one of them out")


def _refuse_with_text(explain: bool, tta: str | None, engine: str) -> None:
    """Refuse what a model that recognizes text cannot do."""
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
    model: str, paths: list[str], progress: Progress, wanted: Wanted
) -> tuple[list[str], Iterable[_Result], dict[str, Any]]:
    """The CSV header, the results, and further JSON keys."""
    with without_garbage_collection():
        from striate.bundle.calibration import require_calibration
        from striate.device import cpu_count
        from striate.exporters.engines import load
        from striate.inference.onnx_classifier import FEW

        few = len(paths) <= FEW
        classifier = load(model, wanted.device, engine=wanted.engine, trust=wanted.trust, few=few)
    classifier = classifier if wanted.calibration else classifier.uncalibrated()
    if wanted.coverage is not None:
        several, calibration = classifier.description.is_multi_label, classifier.description.calibration
        require_calibration(calibration, has_thresholds=several).threshold(wanted.coverage)
    workers = wanted.workers or cpu_count()
    options: Any = {"batch": wanted.batch, "workers": workers, "progress": progress}

    def results() -> Iterator[_Result]:
        if (out := wanted.out) is None:
            for prediction in classifier.predict_many(paths, tta=wanted.tta, **options):
                yield _of_prediction(prediction, wanted)
            return
        from striate.cli.explain import file_names, write_files

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


def _of_prediction(prediction: Prediction, wanted: Wanted) -> _Result:
    scores = prediction.top(wanted.top)
    values: dict[str, Any] = {"top": [{"class": s.name, "probability": s.probability} for s in scores]}
    cells: list[Any] = [value for s in scores for value in (s.name, f"{s.probability:.6f}")]
    texts = [f"{s.name} {100 * s.probability:.1f} %" for s in scores]
    if prediction.thresholds is not None:
        least, labels = dict(zip(prediction.classes, prediction.thresholds, strict=True)), prediction.labels
        values["labels"] = [
            {"class": s.name, "probability": s.probability, "threshold": least[s.name]} for s in labels
        ]
        cells = [";".join(s.name for s in labels), *cells]
        texts = [
            f"{s.name} {100 * s.probability:.1f} % (threshold {100 * least[s.name]:.1f} %)" for s in labels
        ]
    text = "  ".join(texts)
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
