"""`striate seq2seq train` and `striate seq2seq evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from striate.cli import evaluate as evaluation
from striate.cli.options import Config, Device, Json, Model, with_options
from striate.cli.train import train_and_print
from striate.tasks.seq2seq.config import Seq2SeqConfig

_FORMS = (
    "A .tsv of source<TAB>target, two line-aligned text files, a folder with such files for each split, or a "
    ".csv of path,text[,split] for images."
)
_FROM = typer.Option(
    "--from", help="File extension of the source, in a folder of parallel files.", rich_help_panel="Data"
)
_TO = typer.Option("--to", help="File extension of the target.", rich_help_panel="Data")


@with_options(Seq2SeqConfig)
def train(
    context: typer.Context,
    data: Annotated[list[str] | None, typer.Argument(metavar="DATA", help=_FORMS)] = None,
    from_: Annotated[str | None, _FROM] = None,
    to: Annotated[str | None, _TO] = None,
    config: Config = None,
    as_json: Json = False,
    *,
    options: dict[str, Any],
) -> int:
    """Train a Transformer on pairs of texts, or of images and their text; evaluate it and write a report.

    The default preset depends on the amount of data.

    Python: striate.train("pairs.tsv", task="seq2seq", budget="6m")
    """
    options |= {"task": "seq2seq", "config": config}
    if (languages := evaluation.languages(from_, to)) is not None:
        options["languages"] = languages
    return train_and_print(tuple(data) if data else None, options, as_json)


def evaluate(
    model: Model,
    data: Annotated[list[str], typer.Argument(metavar="DATA", help=_FORMS)],
    from_: evaluation.Source = None,
    to: evaluation.Target = None,
    source_columns: evaluation.SourceColumns = None,
    target_columns: evaluation.TargetColumns = None,
    reference_columns: evaluation.ReferenceColumns = None,
    split: evaluation.Split = "auto",
    beam: evaluation.Beam = None,
    shuffled: evaluation.Shuffled = None,
    device: Device = "auto",
    out: evaluation.Report = None,
    figures: evaluation.Figures = False,
    full: evaluation.Full = False,
    parquet: evaluation.Parquet = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model on source-target pairs: BLEU, chrF, exact match, character and word error rates.

    Python: striate.evaluate("runs/words-small", "words.tsv", beams=5)
    """
    output = evaluation.Output(out, figures, full, parquet)
    evaluation.evaluate_and_print(
        model, data, output, as_json, split=split, device=device, beams=beam, shuffled=shuffled,
        languages=evaluation.languages(from_, to), source_columns=source_columns,
        target_columns=target_columns, reference_columns=reference_columns,
    )  # fmt: skip
