"""Report sections of sequence to sequence, as plain records."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from striate.inference.text_evaluation import TextEvaluation
from striate.inference.translator import Answer, Translator, load_translator
from striate.metrics.text import edit_distance
from striate.sections import (
    AttentionMap,
    Card,
    Column,
    Curves,
    ImageAttention,
    Line,
    Panel,
    Report,
    Section,
    Table,
    Text,
)
from striate.tasks.seq2seq.samples import read_samples

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

_MAX_ATTENTION = 3  # answers whose attention is shown
_MAX_ANSWERS = 20  # in each table
_MAX_EPOCHS = 8  # whose sample answers are shown


def report(evaluation: TextEvaluation, run: TrainingRun | None = None, *, model: str | Translator) -> Report:
    """Describe an evaluation, and the run that trained the model, as a report.

    Args:
        evaluation: on the held-out pairs.
        run: the training run; None for a report about the evaluation alone.
        model: a translator or the path of a bundle; it computes the attention that the report shows.
    """
    translator = model if isinstance(model, Translator) else load_translator(model)
    return Report(
        title=run.folder.name if run else f"{Path(translator.path).name} on {evaluation.data}",
        subtitle=_subtitle(run) if run else f"Evaluated on {evaluation.split} pairs of {evaluation.data}",
        sections=tuple(sections(evaluation, run, translator)),
        cards=tuple(_cards(evaluation)),
        warnings=evaluation.notes,
        commands=tuple(_commands(translator, run, evaluation)),
    )


def sections(evaluation: TextEvaluation, run: TrainingRun | None, translator: Translator) -> list[Section]:
    """Curves, attention, wrong and correct answers, sample answers by epoch, metric signatures."""
    found = []
    if run and run.epochs:
        found.append(Section("Training curves", (curves(run),)))
    maps = attention_maps(evaluation, translator)
    if maps:
        note = (
            "For each token of the answer, the decoder's attention to the source: last layer, mean of its "
            "heads."
        )
        found.append(Section("Attention", tuple(maps), note))
    found += _answers_sections(evaluation)
    samples = _samples(run.folder) if run else ()
    if samples:
        columns = (Column("epoch", "d"), Column("source"), Column("answer"), Column("reference"))
        found.append(Section("Sample answers by epoch", (Table(columns, samples),)))
    signatures = _signatures(evaluation)
    if signatures:
        table = Table((Column("metric"), Column("sacrebleu signature")), tuple(signatures.items()))
        found.append(Section("Metric signatures", (table,)))
    return found


def curves(run: TrainingRun) -> Curves:
    """Loss, and error rate and exact matches of the answers, over the epochs."""

    def line(label: str, name: str) -> Line:
        return Line(label, tuple(getattr(row, name) for row in run.epochs))

    loss = (line("train (with label smoothing)", "train_loss"), line("val", "val_loss"))
    answers = (line("token error rate", "val_error"), line("exact match", "val_exact"))
    panels = (Panel("Loss (nats per token)", loss), Panel("Answers on val", answers, share=True))
    return Curves(
        tuple(row.epoch for row in run.epochs), panels, run.best_epoch,
        alt="Loss and error rates over the epochs", file="curves",
    )  # fmt: skip


def attention_maps(evaluation: TextEvaluation, translator: Translator) -> list[AttentionMap | ImageAttention]:
    """Cross-attention of the first answers; answers without tokens are left out."""
    sources = evaluation.sources[:_MAX_ATTENTION]
    results = translator.translate(list(sources), attention=True).results
    return [
        _attention(source, result.answers[0], translator, f"attention{i}")
        for i, (source, result) in enumerate(zip(sources, results, strict=True), 1)
        if result.answers and result.answers[0].attention is not None and len(result.answers[0].attention)
    ]


def _attention(
    source: str, answer: Answer, translator: Translator, file: str
) -> AttentionMap | ImageAttention:
    assert answer.attention is not None
    weights = answer.attention.numpy()
    if translator.source is None:
        rows, columns = translator.grid(source)
        maps = weights[:, : rows * columns].reshape(-1, rows, columns)
        image = translator.description.image_preprocess.read(source)
        return ImageAttention(image, answer.tokens, maps, alt="Attention over the image", file=file)
    tokens = tuple(translator.source.id_to_token(token) for token in translator.source.encode_source(source))
    weights = weights[:, : len(tokens)]  # without padding
    return AttentionMap(tokens, answer.tokens, weights, alt="Attention to the source tokens", file=file)


def worst_answers(evaluation: TextEvaluation) -> list[int]:
    """Indices of the wrong answers, the one with the highest character error rate first."""
    rates = np.array([
        min(edit_distance(answer, text) / max(1, len(text)) for text in references)
        for answer, references in zip(evaluation.answers, evaluation.references, strict=True)
    ])  # fmt: skip
    return [int(i) for i in np.argsort(-rates, kind="stable") if rates[i] > 0]


def _answers_sections(evaluation: TextEvaluation) -> list[Section]:
    wrong = worst_answers(evaluation)
    n = len(evaluation.answers)
    if wrong:
        note = f"{len(wrong):,} of {n:,} answers are not exact; those with the highest character error rate:"
        found = [Section("Worst mistakes", (_answers_table(evaluation, wrong),), note)]
    else:
        found = [Section("Worst mistakes", (Text(f"None: all {n:,} answers are exact."),))]
    correct = [i for i, answer in enumerate(evaluation.answers) if answer in evaluation.references[i]]
    if correct:
        found.append(Section("Correct answers", (_answers_table(evaluation, correct),)))
    return found


def _answers_table(evaluation: TextEvaluation, which: list[int]) -> Table:
    rows = tuple(
        (evaluation.sources[i], evaluation.answers[i], " | ".join(evaluation.references[i]))
        for i in which[:_MAX_ANSWERS]
    )
    return Table((Column("source"), Column("answer"), Column("reference")), rows)


def _samples(folder: Path) -> tuple[tuple[int, str, str, str], ...]:
    """Answers of some epochs, the first and the last one included: epoch, source, answer, reference."""
    rows = read_samples(folder)
    epochs = list(dict.fromkeys(row[0] for row in rows))
    kept = {epochs[i] for i in np.linspace(0, len(epochs) - 1, min(_MAX_EPOCHS, len(epochs))).astype(int)}
    return tuple(
        (int(epoch), source, answer, reference) for epoch, source, reference, answer in rows if epoch in kept
    )


def _signatures(evaluation: TextEvaluation) -> dict[str, str]:
    """Return sacrebleu's signatures by metric, without BLEU if it is 0 by definition."""
    signatures = dict(evaluation.scores.signatures)
    if all(len(text.split()) < 4 for texts in evaluation.references for text in texts):
        signatures.pop("bleu", None)  # BLEU needs texts of four words
    return signatures


def _cards(evaluation: TextEvaluation) -> list[Card]:
    scores, signatures = evaluation.scores, _signatures(evaluation)
    cards = [
        Card(scores.exact, f"exact match on {scores.n:,} {evaluation.split} pairs", ".2%"),
        Card(scores.cer, "character error rate", ".2%"),
        Card(scores.wer, "word error rate", ".2%"),
    ]
    for key, label, value in (("bleu", "BLEU", scores.bleu), ("chrf", "chrF", scores.chrf)):
        if key in signatures and value is not None:
            cards.append(Card(100 * value, label, ".1f"))
    speed = Card(evaluation.tokens_per_second, "tokens per second, greedy decoding", ",.0f")
    return [*cards, speed]


def _subtitle(run: TrainingRun) -> str:
    config = run.config
    layers = f"{config.depth}+{config.decoder_depth or config.depth}"
    return (
        f"{run.description.architecture} of width {config.width}, {layers} layers, on "
        f"{len(run.task.data.splits['train']):,} pairs of {run.task.data.source}"
    )


def _commands(translator: Translator, run: TrainingRun | None, evaluation: TextEvaluation) -> list[str]:
    data = " ".join(map(quote, run.config.data)) if run else quote(evaluation.data)
    use = "predict" if translator.reads_images else "seq2seq translate"
    path = quote(translator.path)
    return [
        f"striate {use} {path} {quote(evaluation.sources[0])}",
        f"striate evaluate {path} {data} --beam 5",
        f"striate weights inspect {path}",
    ]
