"""Report sections of sequence to sequence, as plain records."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from striate.charts import (
    Answers,
    Array,
    AttentionMap,
    Bars,
    Curves,
    EpochSamples,
    ImageAttention,
    Line,
    Panel,
)
from striate.inference.text_evaluation import TextEvaluation
from striate.inference.translator import Answer, Translator, load_translator
from striate.sections import Card, Column, Phrase, Report, Section, Table
from striate.tasks.seq2seq.answers import LineImages, error_rates, errors_by_length, errors_by_token
from striate.tasks.seq2seq.samples import read_samples

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

_MAX_ATTENTION = 3  # answers whose attention is shown
_MAX_TOKENS = 25  # in the table of errors
_MAX_EPOCHS = 30  # whose sample answers are shown


def report(evaluation: TextEvaluation, run: TrainingRun | None = None, *, model: str | Translator) -> Report:
    """Describe an evaluation, and the run that trained the model, as a report.

    Args:
        evaluation: on the held-out pairs.
        run: the training run; None for a report about the evaluation alone.
        model: a translator or the path of a bundle; it computes the attention that the report shows.
    """
    translator = model if isinstance(model, Translator) else load_translator(model)
    answers = _answers(evaluation, translator)
    on = Phrase("Evaluated on {split} pairs of {data}", split=Phrase(evaluation.split), data=evaluation.data)
    title = Phrase("{model} on {data}", model=Path(translator.path).name, data=evaluation.data)
    return Report(
        title=run.folder.name if run else title,
        subtitle=_subtitle(run) if run else on,
        sections=tuple(sections(evaluation, run, translator, answers)),
        cards=tuple(_cards(evaluation)),
        warnings=evaluation.notes,
        commands=tuple(_commands(translator, run, evaluation)),
        answers=answers,
    )


def sections(
    evaluation: TextEvaluation, run: TrainingRun | None, translator: Translator, answers: Answers
) -> list[Section]:
    """Answers, errors by length and token, attention, curves, sample answers by epoch, metric signatures."""
    found = [_answers_section(answers), *_errors_sections(evaluation, translator, answers.rates)]
    maps = attention_maps(evaluation, translator)
    if maps:
        note = Phrase(
            "For each token of the answer, the decoder's attention to the source: last layer, mean of its "
            "heads."
        )
        found.append(Section(Phrase("Attention"), tuple(maps), note))
    if run and run.epochs:
        found.append(Section(Phrase("Training curves"), (curves(run),)))
    samples = _samples(run.folder) if run else ()
    if samples:
        block = EpochSamples(samples, alt="Sample answers by epoch")
        found.append(Section(Phrase("Sample answers by epoch"), (block,)))
    signatures = _signatures(evaluation)
    if signatures:
        columns = (Column(Phrase("metric")), Column(Phrase("sacrebleu signature")))
        table = Table(columns, tuple(signatures.items()))
        found.append(Section(Phrase("Metric signatures"), (table,)))
    return found


def curves(run: TrainingRun) -> Curves:
    """Loss, error rate and exact matches of the answers, learning rate and speed over the epochs."""

    def line(label: str, name: str) -> Line:
        return Line(label, tuple(getattr(row, name) for row in run.epochs))

    loss = (line(Phrase("train (with label smoothing)"), "train_loss"), line(Phrase("val"), "val_loss"))
    answers = (
        line(Phrase("token error rate"), "val_error"), line(Phrase("exact match"), "val_exact"),
    )  # fmt: skip
    panels = (
        Panel(Phrase("Loss (nats per token)"), loss),
        Panel(Phrase("Answers on val"), answers, share=True),
        Panel(Phrase("Learning rate"), (line(Phrase("learning rate"), "lr"),)),
        Panel(Phrase("Training speed (tokens/s)"), (line(Phrase("tokens/s"), "tokens_per_second"),)),
    )
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


def _answers(evaluation: TextEvaluation, translator: Translator) -> Answers:
    images, are_files = None, False
    if translator.reads_images:
        images = LineImages(translator.description.image_preprocess, evaluation.sources)
        are_files = os.path.isfile(evaluation.sources[0])  # noqa: PTH113 - raises no error
    return Answers(
        evaluation.sources, evaluation.references, evaluation.answers, error_rates(evaluation), images,
        are_files, alt="Answers",
    )  # fmt: skip


def _answers_section(answers: Answers) -> Section:
    n, wrong = len(answers.rates), int((answers.rates > 0).sum())
    note = Phrase("{wrong:,} of {n:,} answers are not exact.", wrong=wrong, n=n)
    if not wrong:
        note = Phrase("None: all {n:,} answers are exact.", n=n)
    return Section(Phrase("Errors"), (answers,), note)


def _errors_sections(evaluation: TextEvaluation, translator: Translator, rates: Array) -> list[Section]:
    """Errors by length, and by token; nothing if there are none."""
    wrong = np.flatnonzero(rates > 0)
    if not len(wrong):
        return []
    groups = errors_by_length(evaluation.references, rates)
    bars = Bars(
        Phrase("wrong answers"), tuple(groups), Phrase("length in characters"), Phrase("answers"),
        alt="Share of wrong answers by length",
    )  # fmt: skip
    target = translator.target

    def tokens(text: str) -> list[str]:
        return [target.id_to_token(i) for i in target.encode(text)]

    rows, compared = errors_by_token(
        [tokens(evaluation.answers[i]) for i in wrong], [tokens(evaluation.references[i][0]) for i in wrong]
    )
    columns = (
        Column(Phrase("token")), Column(Phrase("occurs"), ",d"), Column(Phrase("wrong"), ",d"),
        Column(Phrase("share"), ".1%", bar_max=1.0), Column(Phrase("most often instead")),
    )  # fmt: skip
    table = Table(
        columns,
        tuple(
            (token, count, errors, errors / count, instead or "–")
            for token, count, errors, instead in rows[:_MAX_TOKENS]
        ),
    )
    note = Phrase("In {count:,} wrong answers, aligned with their first reference.", count=compared)
    return [
        Section(Phrase("Errors by length"), (bars,)),
        Section(Phrase("Errors by token"), (table,), note),
    ]


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
    ends = scores.intervals
    cards = [
        Card(
            scores.exact,
            Phrase("exact match on {n:,} {split} pairs", n=scores.n, split=Phrase(evaluation.split)),
            ".2%",
            interval=ends.get("exact"),
        ),
        Card(scores.cer, Phrase("character error rate"), ".2%", interval=ends.get("cer")),
        Card(scores.wer, Phrase("word error rate"), ".2%", interval=ends.get("wer")),
    ]
    for key, label, value in (("bleu", "BLEU", scores.bleu), ("chrf", "chrF", scores.chrf)):
        if key in signatures and value is not None:
            interval = (100 * ends[key][0], 100 * ends[key][1]) if key in ends else None
            cards.append(Card(100 * value, label, ".1f", interval=interval))
    speed = Card(evaluation.tokens_per_second, Phrase("tokens per second, greedy decoding"), ",.0f")
    return [*cards, speed]


def _subtitle(run: TrainingRun) -> Phrase:
    config = run.config
    return Phrase(
        "{architecture} of width {width}, {layers} layers, on {n:,} pairs of {data}",
        architecture=run.description.architecture, width=config.width,
        layers=f"{config.depth}+{config.decoder_depth or config.depth}",
        n=len(run.task.data.splits["train"]), data=run.task.data.source,
    )  # fmt: skip


def _commands(translator: Translator, run: TrainingRun | None, evaluation: TextEvaluation) -> list[str]:
    data = " ".join(map(quote, run.config.data)) if run else quote(evaluation.data)
    use = "predict" if translator.reads_images else "seq2seq translate"
    path = quote(translator.path)
    return [
        f"striate {use} {path} {quote(evaluation.sources[0])}",
        f"striate evaluate {path} {data} --beam 5",
        f"striate weights inspect {path}",
    ]
