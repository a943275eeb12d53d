"""`striate seq2seq ...`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.training.seq2seq.config import SeqConfig

if TYPE_CHECKING:
    from striate.inference.translator import TextEvaluation
    from striate.progress import Progress
    from striate.training.seq2seq.session import SeqRun

_NONE = SeqConfig(data=())
_DATA, _NETWORK, _LEARNING, _RUN = "Data", "Network", "Learning", "Run"
_CHOSEN = "chosen for the data"
_FORMS = (
    "A .tsv of source<TAB>target (further columns are other right answers), two files of parallel lines, a "
    "folder of either for each split, or a .csv of path,text[,split] for images."
)


def train(
    data: Annotated[list[str], typer.Argument(help=_FORMS, show_default=False)],
    from_: Annotated[
        str | None, typer.Option("--from", help="Ending of the source's files.", rich_help_panel=_DATA)
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Ending of the target's files.", rich_help_panel=_DATA)
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="characters, words, bytes or sentencepiece; else " + _CHOSEN, rich_help_panel=_DATA
        ),
    ] = None,
    source_tokens: Annotated[
        str | None, typer.Option(help="The source's, where they differ.", rich_help_panel=_DATA)
    ] = None,
    target_tokens: Annotated[
        str | None, typer.Option(help="The target's, where they differ.", rich_help_panel=_DATA)
    ] = None,
    vocab: Annotated[
        int, typer.Option(help="Most words or sentence pieces.", rich_help_panel=_DATA)
    ] = _NONE.vocab,
    joint: Annotated[
        bool | None,
        typer.Option("--joint/--no-joint", help="One vocabulary for both sides.", rich_help_panel=_DATA),
    ] = None,
    val: Annotated[
        float, typer.Option(help="Share held out to choose the best epoch.", rich_help_panel=_DATA)
    ] = _NONE.val,
    test: Annotated[
        float, typer.Option(help="Share held out for the last measurement.", rich_help_panel=_DATA)
    ] = _NONE.test,
    height: Annotated[
        int, typer.Option("--imgsz", "--height", help="Height of images in pixels.", rich_help_panel=_DATA)
    ] = _NONE.height,
    max_width: Annotated[
        int, typer.Option(help="Most pixels of an image's width.", rich_help_panel=_DATA)
    ] = _NONE.max_width,
    channels: Annotated[
        int, typer.Option(help="1 for grayscale, 3 for RGB.", rich_help_panel=_DATA)
    ] = _NONE.channels,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", help="Threads that decode.", rich_help_panel=_DATA)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="tiny, small, base, large; " + _CHOSEN, rich_help_panel=_NETWORK),
    ] = None,
    width: Annotated[int, typer.Option(help="Of a token's vector.", rich_help_panel=_NETWORK)] = 0,
    depth: Annotated[int, typer.Option(help="Layers of the encoder.", rich_help_panel=_NETWORK)] = 0,
    decoder_depth: Annotated[
        int | None, typer.Option(help="Layers of the decoder; as many.", rich_help_panel=_NETWORK)
    ] = None,
    heads: Annotated[int, typer.Option(help="Of the attentions.", rich_help_panel=_NETWORK)] = 0,
    hidden: Annotated[
        int, typer.Option(help="Width between the feed-forward layers.", rich_help_panel=_NETWORK)
    ] = 0,
    dropout: Annotated[float | None, typer.Option(help="In the layers.", rich_help_panel=_NETWORK)] = None,
    positions: Annotated[
        str, typer.Option(help="sinusoidal, learned or none.", rich_help_panel=_NETWORK)
    ] = _NONE.positions,
    encoder: Annotated[
        str, typer.Option(help="Of images: columns, patches or a network.", rich_help_panel=_NETWORK)
    ] = _NONE.encoder,
    encoder_channels: Annotated[
        int, typer.Option(help="Of its first convolution.", rich_help_panel=_NETWORK)
    ] = 0,
    encoder_from: Annotated[
        str | None, typer.Option(help="A classifier that the encoder starts from.", rich_help_panel=_NETWORK)
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", "-e", help="Passes over the pairs.", rich_help_panel=_LEARNING)
    ] = 0,
    budget: Annotated[
        str | None,
        typer.Option(help="Time for all of it, such as 6m, in place of --epochs.", rich_help_panel=_LEARNING),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", help="Tokens in a step.", rich_help_panel=_LEARNING)
    ] = 0,
    lr: Annotated[
        float, typer.Option("--lr", help="Peak learning rate; a factor for noam.", rich_help_panel=_LEARNING)
    ] = 0.0,
    sched: Annotated[
        str, typer.Option(help="cosine, inverse-sqrt, noam, constant.", rich_help_panel=_LEARNING)
    ] = _NONE.sched,
    warmup: Annotated[
        float, typer.Option(help="Below 1 a share of the steps, else steps.", rich_help_panel=_LEARNING)
    ] = _NONE.warmup,
    weight_decay: Annotated[
        float, typer.Option(help="Not on biases, norms, embeddings.", rich_help_panel=_LEARNING)
    ] = _NONE.weight_decay,
    label_smoothing: Annotated[
        float, typer.Option(help="Spread over all tokens.", rich_help_panel=_LEARNING)
    ] = _NONE.label_smoothing,
    grad_clip: Annotated[
        float, typer.Option(help="Largest gradient norm; 0 for no limit.", rich_help_panel=_LEARNING)
    ] = _NONE.grad_clip,
    average: Annotated[
        int, typer.Option(help="Epochs whose weights are averaged at the end.", rich_help_panel=_LEARNING)
    ] = _NONE.average,
    accumulate: Annotated[
        int, typer.Option(help="Parts that a batch is cut into.", rich_help_panel=_LEARNING)
    ] = _NONE.accumulate,
    amp: Annotated[
        bool | None, typer.Option("--amp/--no-amp", help="Mixed precision.", rich_help_panel=_LEARNING)
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without a better one.", rich_help_panel=_LEARNING)
    ] = _NONE.patience,
    check: Annotated[
        bool,
        typer.Option("--check", help="First learn 32 examples by heart.", rich_help_panel=_LEARNING),
    ] = False,
    samples: Annotated[
        int, typer.Option(help="Answers shown after each epoch.", rich_help_panel=_RUN)
    ] = _NONE.samples,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.", rich_help_panel=_RUN)] = _NONE.seed,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = _NONE.device,
    save_every: Annotated[
        int,
        typer.Option(help="Steps from one saved state to the next; 0 for a minute.", rich_help_panel=_RUN),
    ] = _NONE.save_every,
    rollbacks: Annotated[
        int,
        typer.Option(help="Times to go back when the loss is not finite.", rich_help_panel=_RUN),
    ] = _NONE.rollbacks,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.", rich_help_panel=_RUN)] = None,
    out: Annotated[
        str, typer.Option(help="Folder that the run's folder is put into.", rich_help_panel=_RUN)
    ] = _NONE.out,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_RUN)
    ] = False,
) -> int:
    """Train a Transformer on pairs, measure it, and write a report. What is not told is chosen for the data.

    Python: striate.train_seq2seq("pairs.tsv", budget="6m")
    """
    from striate.cli.train import _as_flags
    from striate.errors import UsageError

    try:
        config = SeqConfig(
            data=tuple(data), languages=_languages(from_, to), tokens=tokens, source_tokens=source_tokens,
            target_tokens=target_tokens, vocab=vocab, joint=joint, val=val, test=test, height=height,
            max_width=max_width, channels=channels, workers=workers, model=model, width=width, depth=depth,
            decoder_depth=decoder_depth, heads=heads, hidden=hidden, dropout=dropout, positions=positions,
            encoder=encoder, encoder_channels=encoder_channels, encoder_from=encoder_from,
            epochs=epochs, budget=budget, batch=batch, lr=lr,
            sched=sched, warmup=warmup, weight_decay=weight_decay, label_smoothing=label_smoothing,
            grad_clip=grad_clip, average=average, accumulate=accumulate, amp=amp, patience=patience,
            check=check, samples=samples, seed=seed, device=device, save_every=save_every,
            rollbacks=rollbacks, name=name, out=out,
        )  # fmt: skip
    except UsageError as error:
        raise UsageError(_as_flags(error.what), error.why, error.fix) from error

    from striate.data.text.pairs import open_pairs

    open_pairs(*config.data, languages=config.languages)  # a wrong path is told before torch is loaded

    from striate.training.seq2seq.session import train_pairs

    return _show(lambda progress: train_pairs(config, progress), as_json)


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    data: Annotated[list[str], typer.Argument(help="As for `train`.", show_default=False)],
    from_: Annotated[str | None, typer.Option("--from", help="Ending of the source's files.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Ending of the target's files.")] = None,
    split: Annotated[
        str, typer.Option(help="test, val, train or all; auto takes test, else val, else all.")
    ] = "auto",
    beam: Annotated[int, typer.Option("--beam", help="Answers followed at once; 1 for greedy.", min=1)] = 1,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Control: compare with another source's right answers.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Measure a model: BLEU, chrF, exact match, character and word error rate.

    Python: striate.evaluate_seq2seq("runs/words/best.safetensors", "words.tsv")
    """
    from striate import bundle

    bundle.inspect(bundle.path_of(model))  # a wrong file is told before torch is loaded

    from striate.cli.console import print_json, watching
    from striate.inference.translator import evaluate_seq2seq

    with watching() as progress:
        evaluation = evaluate_seq2seq(
            model, *data, split=split, languages=_languages(from_, to), beams=beam, shuffled=shuffled,
            device=device, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print_scores(evaluation)
    return 0


def go_on_with_pairs(run: str, options: dict[str, Any], as_json: bool) -> int:
    """Resume a run on pairs, with the options that the user named."""
    from striate.training.seq2seq.session import resume_pairs

    data = options.get("data")
    given = {**options, "data": None if data is None else (data,)}
    return _show(lambda progress: resume_pairs(run, progress, **given), as_json)


def _show(training: Callable[[Progress], SeqRun], as_json: bool) -> int:
    """Train, measure, report and print; returns the exit code."""
    from striate.cli.console import print_json, watching
    from striate.errors import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE
    from striate.training.interrupts import TrainingInterrupted

    interrupted = False
    with watching() as progress:
        try:
            trained = training(progress)
        except TrainingInterrupted as stop:
            trained, interrupted = stop.run, True
            again = f"go on with it: striate resume {shlex.quote(str(trained.folder))}"
            if stop.terminated:
                progress.warn(f"terminated; what was reached is saved; {again}")
                return TERMINATED_EXIT_CODE
            progress.warn("interrupted; measuring and reporting what was reached (Ctrl-C again to leave it)")
        from striate.runs import finish_seq2seq

        run = finish_seq2seq(trained, progress)
    if as_json:
        print_json(run.to_json())
    else:
        _print_scores(run.evaluation)
        best = shlex.quote(str(run.best))
        print(f"model   {run.best}")
        print(f"report  {run.report}")
        if interrupted:
            print(f"next    striate resume {shlex.quote(str(trained.folder))}")
        elif trained.data.kind == "images":
            print(f"next    striate predict {best} LINE.png")
        else:
            print(f"next    striate seq2seq translate {best} {shlex.quote(run.evaluation.sources[0])}")
    return INTERRUPTED_EXIT_CODE if interrupted else 0


def _languages(source: str | None, target: str | None) -> tuple[str, str] | None:
    from striate.errors import UsageError

    if (source is None) != (target is None):
        raise UsageError("--from and --to", "one is missing", "Give both")
    return None if source is None or target is None else (source, target)


def _print_scores(evaluation: TextEvaluation) -> None:
    from striate.cli.console import percent

    scores = evaluation.scores
    print(f"exact match {percent(scores.exact)} of {scores.n:,} {evaluation.split} pairs")
    print(f"character error rate {percent(scores.cer)}, word error rate {percent(scores.wer)}")
    for name, value in (("bleu", scores.bleu), ("chrf", scores.chrf)):
        if value is not None:
            print(f"{'BLEU' if name == 'bleu' else 'chrF'} {100 * value:.2f}  ({scores.signatures[name]})")
    print(f"{evaluation.tokens_per_second:,.0f} tok/s")
    for note in evaluation.notes:
        print(f"note: {note}")
