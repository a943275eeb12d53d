"""One HTML page about a run on pairs: everything is in the file, nothing is fetched."""

from __future__ import annotations

import base64
from pathlib import Path
from shlex import quote

import numpy as np
import yaml

import striate
from striate.files import write_atomic
from striate.inference.translator import TextEvaluation, Translator
from striate.metrics.text import edit_distance
from striate.report import figures, seq2seq_figures
from striate.report.templates import template
from striate.training.seq2seq.job import read_samples
from striate.training.seq2seq.session import SeqRun

PICTURED = 3  # answers whose attention is drawn
_SHOWN = 20  # answers of each kind in a table
_EPOCHS = 8  # of which samples are shown


def write_seq2seq_report(evaluation: TextEvaluation, run: SeqRun, translator: Translator) -> Path:
    """Write `report.html` and its figures as PNG files into a run's folder.

    Args:
        evaluation: of the held-out pairs.
        run: the training run.
        translator: its best bundle.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder cannot be written to.
    """
    drawn = {"curves": seq2seq_figures.curves(run.epochs, run.best_epoch)} if run.epochs else {}
    which = list(range(min(PICTURED, len(evaluation.sources))))
    looks = translator.translate([evaluation.sources[i] for i in which], attention=True)
    for i, result in zip(which, looks.results, strict=True):
        answer = result.answers[0] if result.answers else None
        if answer is None or answer.attention is None or not len(answer.attention):
            continue
        if translator.source is None:
            contract = translator.description.contract
            image = contract.read(evaluation.sources[i])
            grid = translator.grid(evaluation.sources[i])
            drawn[f"attention{i + 1}"] = seq2seq_figures.attention_over(image, answer, grid)
        else:
            shown = [
                translator.source.id_to_token(t) for t in translator.source.source(evaluation.sources[i])
            ]
            drawn[f"attention{i + 1}"] = seq2seq_figures.attention(shown, answer)
    images = {name: figures.png(figure) for name, figure in drawn.items()}
    for name, png in images.items():
        write_atomic(run.folder / f"{name}.png", png)
    page = run.folder / "report.html"
    write_atomic(page, _render(evaluation, run, images).encode("utf-8", "replace"))
    return page


def _render(evaluation: TextEvaluation, run: SeqRun, images: dict[str, bytes]) -> str:
    urls = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in images.items()}
    wrong = worst(evaluation)
    signatures = dict(evaluation.scores.signatures)
    if all(len(text.split()) < 4 for texts in evaluation.references for text in texts):
        signatures.pop("bleu", None)  # it counts runs of up to four words: of single words it is 0
    right = [i for i, answer in enumerate(evaluation.answers) if answer in evaluation.references[i]]
    return template("seq2seq.html").render(
        title=run.folder.name,
        subtitle=_subtitle(run),
        s=evaluation.scores,
        signatures=signatures,
        e=evaluation,
        cards=[
            (f"{len(run.epochs)}", f"epochs, best is {run.best_epoch}"),
            (f"{run.seconds:,.0f} s", "of training"),
            (f"{evaluation.tokens_per_second:,.0f}", "tokens a second written, greedily"),
        ],
        notes=list(dict.fromkeys([*run.notes, *evaluation.notes])),
        curves=urls.get("curves"),
        looks=[url for name, url in urls.items() if name.startswith("attention")],
        samples=_samples(run.folder),
        wrong=[_row(evaluation, i) for i in wrong[:_SHOWN]],
        right=[_row(evaluation, i) for i in right[:_SHOWN]],
        n_wrong=len(wrong),
        commands=_commands(run, evaluation),
        config=yaml.safe_dump(run.config.to_json(), sort_keys=False, allow_unicode=True),
        version=striate.__version__,
        percent=lambda share: f"{100 * share:.2f}\N{NO-BREAK SPACE}%",
    )


def worst(evaluation: TextEvaluation) -> list[int]:
    """The wrong answers, those with the most edits for their length first."""
    shares = []
    for answer, references in zip(evaluation.answers, evaluation.references, strict=True):
        nearest = min(edit_distance(answer, text) / max(1, len(text)) for text in references)
        shares.append(nearest)
    order = np.argsort(-np.array(shares), kind="stable")
    return [int(i) for i in order if shares[i] > 0]


def _row(evaluation: TextEvaluation, i: int) -> tuple[str, str, str]:
    return evaluation.sources[i], evaluation.answers[i], " | ".join(evaluation.references[i])


def _samples(folder: Path) -> list[list[str]]:
    """Some epochs' answers, the first and the last epoch among them."""
    rows = read_samples(folder)
    epochs = list(dict.fromkeys(row[0] for row in rows))
    kept = {epochs[i] for i in np.linspace(0, len(epochs) - 1, min(_EPOCHS, len(epochs))).astype(int)}
    return [row for row in rows if row[0] in kept]


def _subtitle(run: SeqRun) -> str:
    config = run.config
    layers = f"{config.depth}+{config.decoder_depth or config.depth}"
    return (
        f"{run.description.architecture} of width {config.width}, {layers} layers, on "
        f"{len(run.data.splits['train']):,} pairs of {run.data.source}"
    )


def _commands(run: SeqRun, evaluation: TextEvaluation) -> list[str]:
    best = quote(str(run.best))
    data = " ".join(map(quote, run.config.data))
    use = "predict" if run.data.kind == "images" else "seq2seq translate"
    return [
        f"striate {use} {best} {quote(evaluation.sources[0])}",
        f"striate seq2seq evaluate {best} {data} --beam 5",
        f"striate weights inspect {best}",
    ]
