"""`striate evaluate`, for every task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from striate.cli.options import LABEL_COLUMN, PATH_COLUMN, TTA, WORKERS, Device, Json, Model, Trust
from striate.training.config import MAX_BATCH

MAX_BEAM = 1024
MAX_CORRUPTED = 1_000_000  # images
_DATA = "Labeled data, as for training; for an image classifier, by default the run's held-out images."
_SPLIT = "Split: test, val, train, or all of them; auto is test if present, else val, else all."
_DATA_FLAG = typer.Option("--data", help="The same as the argument DATA.")
_CACHE = "Keep decoded images on disk for the next run."
_CALIBRATION = "Divide scores by the model's temperature, if it has one."
_SLICES = (
    "Accuracy on parts of the images: by size, brightness, sharpness, or columns of the table of images; "
    "several with commas."
)
_CORRUPTIONS = "Accuracy under the 15 corruptions of ImageNet-C: noise, blur, weather and others."
_SEVERITIES = "With --corruptions: their severities, such as 1,2,3,4,5."
_CORRUPTED = "With --corruptions: number of images, chosen at random."
_image = partial(typer.Option, rich_help_panel="Image classification")
_text = partial(typer.Option, rich_help_panel="Sequence to sequence")

# Options that `seq2seq evaluate` shares.
Split = Annotated[str, typer.Option(help=_SPLIT)]
Report = Annotated[str | None, typer.Option(help="Folder for an HTML report.")]
Figures = Annotated[bool, typer.Option("--figures", help="With --out: write the figures as PNG files, too.")]
Full = Annotated[
    bool, typer.Option("--full", help="With --out: put a small copy of every image into the report.")
]
Parquet = Annotated[
    bool, typer.Option("--parquet", help="With --out: write predictions.parquet, too; needs pyarrow.")
]
Source = Annotated[str | None, _text("--from", help="File extension of the source, in a folder of pairs.")]
Target = Annotated[str | None, _text("--to", help="File extension of the target.")]
Beam = Annotated[
    int | None, _text(help="Beam size; 1 for greedy search.", min=1, max=MAX_BEAM, show_default="1")
]
SourceColumns = Annotated[
    str | None,
    _text(
        help="Columns of a table that make up the source: names or numbers, such as 1,3.",
        show_default="as in training",
    ),
]
TargetColumns = Annotated[
    str | None, _text(help="Columns that make up the target.", show_default="as in training")
]
ReferenceColumns = Annotated[
    str | None,
    _text(
        help="Columns that are further correct targets; `all` for all other columns.",
        show_default="as in training",
    ),
]
Shuffled = Annotated[bool | None, _text("--shuffled", help="Control: score against shuffled references.")]


def evaluate(
    model: Model,
    data: Annotated[list[str] | None, typer.Argument(metavar="DATA", help=_DATA, show_default=False)] = None,
    data_flag: Annotated[list[str] | None, _DATA_FLAG] = None,
    split: Split = "auto",
    device: Device = "auto",
    out: Report = None,
    figures: Figures = False,
    full: Full = False,
    parquet: Parquet = False,
    as_json: Json = False,
    batch: Annotated[
        int | None,
        _image("--batch", "--batch-size", "-b", help="Batch size.", show_default="64", min=1, max=MAX_BATCH),
    ] = None,
    workers: Annotated[int | None, _image("--workers", "-j", **WORKERS)] = None,
    cache: Annotated[bool | None, _image("--cache/--no-cache", help=_CACHE, show_default="cache")] = None,
    path_column: Annotated[str | None, _image("--path-column", **PATH_COLUMN)] = None,
    label_column: Annotated[str | None, _image("--label-column", **LABEL_COLUMN)] = None,
    slice_by: Annotated[str | None, _image("--slice-by", help=_SLICES, show_default="none")] = None,
    corruptions: Annotated[bool, _image("--corruptions", help=_CORRUPTIONS)] = False,
    severities: Annotated[str | None, _image("--severities", help=_SEVERITIES, show_default="1,3,5")] = None,
    corruption_images: Annotated[
        int | None,
        _image("--corruption-images", help=_CORRUPTED, show_default="500", min=1, max=MAX_CORRUPTED),
    ] = None,
    tta: Annotated[str | None, _image("--tta", help=TTA, show_default="none")] = None,
    calibration: Annotated[bool, _image("--calibration/--no-calibration", help=_CALIBRATION)] = True,
    trust: Trust = "",
    source: Source = None,
    target: Target = None,
    source_columns: SourceColumns = None,
    target_columns: TargetColumns = None,
    reference_columns: ReferenceColumns = None,
    beam: Beam = None,
    shuffled: Shuffled = None,
) -> None:
    """Evaluate a model on labeled data: accuracy, or BLEU and error rates.

    Python: striate.evaluate("runs/flowers-resnet18", "flowers/")
    """
    output = Output(out, figures, full, parquet)
    evaluate_and_print(
        model, [*(data or ()), *(data_flag or ())], output, as_json, split=split, device=device, batch=batch,
        workers=workers, cache=cache, path_column=path_column, label_column=label_column, beams=beam,
        shuffled=shuffled, languages=languages(source, target), source_columns=source_columns,
        target_columns=target_columns, reference_columns=reference_columns, trust=trust or None,
        tta=tta, slice_by=slice_by, corruption_images=corruption_images,
        corruptions=_corruptions(corruptions, severities, corruption_images),
        calibration=None if calibration else False,
    )  # fmt: skip


def _corruptions(wanted: bool, severities: str | None, images: int | None) -> bool | str | None:
    """The value of `striate.evaluate`'s `corruptions`; raises UsageError for details without it."""
    from striate.errors import UsageError

    if wanted:
        return True if severities is None else severities
    for flag, value in (("--severities", severities), ("--corruption-images", images)):
        if value is not None:
            raise UsageError(f"{flag} without --corruptions", "it describes them", "Add --corruptions")
    return None


class Output(NamedTuple):
    """The folder of the report, and what is written into it besides the page; see `write_report`."""

    folder: str | None
    figures: bool
    full: bool
    parquet: bool

    def check(self) -> None:
        """Refuse what cannot be written before anything is computed."""
        from striate.errors import UsageError
        from striate.report.prediction_table import require_parquet
        from striate.training.run_folder import writable

        for name in ("figures", "full", "parquet"):
            if self.folder is None and getattr(self, name):
                raise UsageError(f"--{name} without --out", "it belongs to the report", "Add --out FOLDER")
        if self.parquet:
            require_parquet()
        if self.folder is not None:
            writable(self.folder)


def evaluate_and_print(model: str, data: list[str], out: Output, as_json: bool, **options: Any) -> None:
    """Evaluate a model with the options that are not None, and print the result."""
    from striate import bundle
    from striate.errors import UsageError
    from striate.tasks import entry

    # A wrong file is reported before torch is imported.
    name = bundle.describe(bundle.path_of(model)).task
    task = entry(name)
    given = {option: value for option, value in options.items() if value is not None}
    if unknown := [option for option in given if option not in ("split", "device", *task.evaluate_options)]:
        flag = f"--{_FLAGS.get(unknown[0], unknown[0]).replace('_', '-')}"
        raise UsageError(f"{flag} with a {name} model", "it has no such option", f"Leave {flag} out")
    if len(data) > task.max_paths:
        raise UsageError(f"{len(data)} datasets", " and ".join(map(repr, data)), "Give one")
    out.check()

    import striate
    from striate.cli.console import print_evaluation, print_json, say, watching

    source = data[0] if len(data) == 1 else tuple(data) or None
    with watching() as progress:
        evaluation = striate.evaluate(model, source, progress=progress, **given)
    report = None
    if out.folder is not None:
        from striate.report.page import write_report

        report = write_report(
            task.find("report")(evaluation, model=model), Path(out.folder),
            figures=out.figures, full=out.full, parquet=out.parquet,
        )  # fmt: skip
    if as_json:
        print_json({**evaluation.to_json(), "report": None if report is None else str(report)})
        return
    print_evaluation(evaluation)
    if report is not None:
        say(f"report  {report}")


_FLAGS = {"beams": "beam", "languages": "from"}  # of options that have another name in Python


def languages(source: str | None, target: str | None) -> tuple[str, str] | None:
    """The file extensions of --from and --to; raises UsageError if one is missing."""
    from striate.errors import UsageError

    if (source is None) != (target is None):
        raise UsageError("--from and --to", "one is missing", "Give both")
    return None if source is None or target is None else (source, target)
