"""Evaluate a sequence-to-sequence model on pairs of sources and references."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from striate.data.images.samples import UNSPLIT
from striate.data.text.columns import Column, ColumnSelection
from striate.data.text.pairs import PairSet, open_pairs
from striate.data.text.tokens import shown_unknown
from striate.errors import DataError, UsageError, translated_errors
from striate.inference.evaluation import ALL_SPLITS
from striate.inference.evaluation_data import choose_split
from striate.inference.evaluation_view import answers_html, answers_text
from striate.inference.prediction import NOT_FINITE
from striate.inference.translator import Translator, load_translator, warnings_of
from striate.metrics.text import TextScores, measure
from striate.progress import AUTO, Progress


@dataclass(frozen=True)
class TextEvaluation:
    """The metrics of a sequence-to-sequence model on one split.

    Attributes:
        scores: BLEU, chrF, exact match, error rates.
        data: name of the dataset.
        split: which part of it.
        sources: texts, or paths of images.
        references: the correct answers for each.
        answers: what the model generated.
        tokens_per_second: decoding speed.
        notes: warnings.
        nonfinite: number of answers whose scores are not finite; they count as wrong.
        columns: of the data, and what they are used for; empty for parallel files.
        cut: number of answers that were cut off at the maximum length.
        unknown_sources: number of sources with characters or words that the model does not know.
        unknown_references: number of references with some that the model cannot write.
        empty: number of pairs of the data that are left out because a side is empty.
    """

    scores: TextScores
    data: str
    split: str
    sources: tuple[str, ...] = field(repr=False)
    references: tuple[tuple[str, ...], ...] = field(repr=False)
    answers: tuple[str, ...] = field(repr=False)
    tokens_per_second: float
    notes: tuple[str, ...] = ()
    nonfinite: int = 0
    columns: tuple[Column, ...] = ()
    cut: int = 0
    unknown_sources: int = 0
    unknown_references: int = 0
    empty: int = 0
    task: ClassVar[Literal["seq2seq"]] = "seq2seq"
    calibration: ClassVar[None] = None
    unknown: ClassVar[str] = ""

    __repr__ = answers_text
    _repr_html_ = answers_html

    def headline(self) -> dict[str, Any]:
        """The figures that a bundle carries."""
        return self.scores.to_json()

    def to_json(self) -> dict[str, Any]:
        """What `striate evaluate --json` prints."""
        return {
            **self.scores.to_json(),
            "data": self.data,
            "split": self.split,
            "tokens_per_second": self.tokens_per_second,
            "nonfinite": self.nonfinite,
            "columns": [column.to_json() for column in self.columns],
            "cut": self.cut,
            "unknown_sources": self.unknown_sources,
            "unknown_references": self.unknown_references,
            "empty": self.empty,
            "notes": list(self.notes),
        }


@translated_errors()
def evaluate_seq2seq(
    model: str | os.PathLike[str] | Translator,
    *data: str | os.PathLike[str],
    split: str = "auto",
    languages: tuple[str, str] | None = None,
    beams: int = 1,
    shuffled: bool = False,
    source_columns: Any = None,
    target_columns: Any = None,
    reference_columns: Any = None,
    device: str = "auto",
    progress: Progress = AUTO,
) -> TextEvaluation:
    """Evaluate a model on pairs of sources and references.

    Args:
        model: a bundle, a run folder, or a translator.
        data: one or two paths, as for `striate.data.text.pairs.open_pairs`.
        split: `test`, `val`, `train`, or `all` of them; `auto` is test if there is one, else val, else all.
        languages: as for `open_pairs`.
        beams: as for `Translator.translate`.
        shuffled: control: compare each answer with the references of another source.
        source_columns: columns that make up the source, by name or number, such as `1,3`. If none of the
            three is given, they are as in training.
        target_columns: columns that make up the target.
        reference_columns: columns that are further correct targets; `all` for all other columns.
        device: where to run.
        progress: receives an update per batch.

    Raises:
        BundleError, DataError, UsageError: as `load_translator` and `open_pairs`; or no such split.
    """
    paths = [p for item in data for p in ((item,) if isinstance(item, (str, os.PathLike)) else item or ())]
    if not paths:
        raise UsageError("no data to evaluate on", "a bundle contains none", "Give --data FILE")
    translator = model if isinstance(model, Translator) else load_translator(model, device)
    selection = ColumnSelection.of(source_columns, target_columns, reference_columns)
    selection = selection or ColumnSelection.of_training(translator.description.text)
    found = open_pairs(*paths, languages=languages, columns=selection)
    evaluation = measure_on(translator, found, split, beams, progress, shuffled=shuffled)
    return replace(evaluation, notes=(*found.notes, *evaluation.notes))


def measure_on(
    translator: Translator,
    found: PairSet,
    split: str,
    beams: int = 1,
    progress: Progress = AUTO,
    *,
    shuffled: bool = False,
) -> TextEvaluation:
    """Evaluate a model on a split of pairs.

    Raises:
        DataError: sources that the model does not read, or none that is readable.
        UsageError: no such split.
    """
    if (found.kind == "images") != translator.reads_images:
        reads = "images" if translator.reads_images else "text"
        raise DataError(
            f"cannot evaluate on {found.source!r}",
            f"the model reads {reads}, but the sources are not {reads}",
        )
    name, pairs = choose_split(found.splits, split, found.source)
    progress.begin("reading images" if translator.reads_images else "translating", len(pairs), "pairs")
    done = translator.translate(pairs.sources, beams=beams, progress=progress)
    progress.end()
    # A source whose scores are not finite counts, with an empty answer; one that cannot be read does not.
    readable = [i for i, result in enumerate(done.results) if result.error in (None, NOT_FINITE)]
    notes = [f"{r.source}: {r.error}" for r in done.results if r.error not in (None, NOT_FINITE)]
    notes += warnings_of(done.results)
    if not readable:
        raise DataError(f"cannot evaluate on {found.source!r}", f"no source can be read: {notes[0]}")
    if name == UNSPLIT and "train" in found.splits:
        notes.append(ALL_SPLITS)
    pairs = pairs.take(readable)
    answers = tuple(done.results[i].text for i in readable)
    if nonfinite := sum(done.results[i].error == NOT_FINITE for i in readable):
        notes.append(
            f"the scores of {nonfinite:,} of {len(readable):,} answers are not finite: they count as wrong"
        )
    references = pairs.references
    in_references = (translator.target.unknown(text) for texts in references for text in texts)
    unwritable = [parts for parts in in_references if parts]
    if unwritable:
        notes.append(
            f"{len(unwritable):,} references have characters or words that the model cannot write: "
            f"{shown_unknown(part for parts in unwritable for part in parts)}"
        )
    if shuffled:
        half = len(references) // 2
        references = (*references[half:], *references[:half])
        notes.append("control: each answer is compared with the references of another source")
    scores = measure(answers, references)
    return TextEvaluation(
        scores, found.source, name, pairs.sources, references, answers, done.tokens_per_second,
        tuple(notes), nonfinite, found.columns,
        cut=sum(result.cut for result in done.results),
        unknown_sources=sum(bool(result.unknown) for result in done.results),
        unknown_references=len(unwritable),
        empty=found.skipped,
    )  # fmt: skip
