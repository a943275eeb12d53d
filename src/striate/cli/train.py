"""`striate train`."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

import typer

from striate.training.config import TrainConfig

_DEFAULT = TrainConfig(data="")
_DATA, _NETWORK, _LEARNING, _RUN = "Data", "Network", "Learning", "Run"


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="Folder of class folders (with train/val/test above them or not), CSV or TSV, folder of idx "
            "files, or `digits`.",
            show_default=False,
        ),
    ] = None,
    data_flag: Annotated[
        str | None, typer.Option("--data", help="The same as the argument.", rich_help_panel=_DATA)
    ] = None,
    imgsz: Annotated[
        int | None, typer.Option("--imgsz", help="Side of the input in pixels.", rich_help_panel=_DATA)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="3 for RGB, 1 for grayscale.", rich_help_panel=_DATA)
    ] = None,
    resize: Annotated[
        Literal["crop", "squash", "letterbox"],
        typer.Option(help="How images are brought to a square.", rich_help_panel=_DATA),
    ] = "crop",
    augment: Annotated[
        str,
        typer.Option(help="Random changes: auto, none, shift, light, standard.", rich_help_panel=_DATA),
    ] = _DEFAULT.augment,
    val: Annotated[
        float, typer.Option(help="Share held out to choose the best epoch.", rich_help_panel=_DATA)
    ] = _DEFAULT.val,
    test: Annotated[
        float, typer.Option(help="Share held out for the last measurement.", rich_help_panel=_DATA)
    ] = _DEFAULT.test,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", help="Threads that decode.", rich_help_panel=_DATA)
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Network, by name.", rich_help_panel=_NETWORK)
    ] = _DEFAULT.model,
    weights: Annotated[
        str, typer.Option(help="none, imagenet, an official name, or a file.", rich_help_panel=_NETWORK)
    ] = _DEFAULT.weights,
    transfer: Annotated[
        str,
        typer.Option(help="What trains: all, last, head, append (a layer on top).", rich_help_panel=_NETWORK),
    ] = _DEFAULT.transfer,
    last_layers: Annotated[
        int, typer.Option(help="Stages or blocks that `last` trains.", rich_help_panel=_NETWORK)
    ] = _DEFAULT.last_layers,
    normalize: Annotated[
        str, typer.Option(help="auto, imagenet, half, vgg.", rich_help_panel=_NETWORK)
    ] = _DEFAULT.normalize,
    epochs: Annotated[
        int, typer.Option("--epochs", "-e", help="Passes over the images.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.epochs,
    batch: Annotated[
        int,
        typer.Option("--batch", "--batch-size", "-b", help="Images in a step.", rich_help_panel=_LEARNING),
    ] = _DEFAULT.batch,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Peak learning rate.", rich_help_panel=_LEARNING)
    ] = None,
    backbone_lr: Annotated[
        float | None,
        typer.Option(help="Peak rate of what came with the weights.", rich_help_panel=_LEARNING),
    ] = None,
    opt: Annotated[str, typer.Option(help="adamw or sgd.", rich_help_panel=_LEARNING)] = _DEFAULT.opt,
    sched: Annotated[
        str, typer.Option(help="cosine, step or constant.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.sched,
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which the rate rises.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.warmup,
    weight_decay: Annotated[
        float | None, typer.Option(help="Not on biases and norms.", rich_help_panel=_LEARNING)
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="0 for none, 0.1 is usual.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.label_smoothing,
    grad_clip: Annotated[
        float, typer.Option(help="Largest gradient norm; 0 for no limit.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.grad_clip,
    accumulate: Annotated[
        int,
        typer.Option(help="Parts that a batch is cut into to save memory.", rich_help_panel=_LEARNING),
    ] = _DEFAULT.accumulate,
    ema: Annotated[
        float,
        typer.Option(help="Decay of the weights' moving average; 0 for none.", rich_help_panel=_LEARNING),
    ] = _DEFAULT.ema,
    amp: Annotated[
        bool | None,
        typer.Option("--amp/--no-amp", help="Mixed precision.", rich_help_panel=_LEARNING),
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without a better one.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.patience,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.", rich_help_panel=_RUN)] = _DEFAULT.seed,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = _DEFAULT.device,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.", rich_help_panel=_RUN)] = None,
    out: Annotated[
        str, typer.Option(help="Folder that the run's folder is put into.", rich_help_panel=_RUN)
    ] = _DEFAULT.out,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_RUN)
    ] = False,
) -> int:
    """Train a network on a folder of images, measure it, and write a report.

    Python: striate.train("flowers/", model="resnet18", epochs=20)
    """
    from striate.errors import INTERRUPTED_EXIT_CODE, UsageError

    if (data is None) == (data_flag is None):
        raise UsageError("no data to train on" if data is None else "two data sets", "", "Give one folder")
    options = {
        "imgsz": imgsz, "channels": channels, "resize": resize, "augment": augment, "val": val, "test": test,
        "workers": workers, "model": model, "weights": weights,
        "transfer": transfer, "last_layers": last_layers, "normalize": normalize, "backbone_lr": backbone_lr,
        "epochs": epochs, "batch": batch, "lr": lr,
        "opt": opt, "sched": sched, "warmup": warmup, "weight_decay": weight_decay,
        "label_smoothing": label_smoothing, "grad_clip": grad_clip, "accumulate": accumulate,
        "ema": ema, "amp": amp,
        "patience": patience, "seed": seed, "device": device, "name": name, "out": out,
    }  # fmt: skip
    config = TrainConfig(data=data or data_flag or "", **options)  # type: ignore[arg-type]  # checked there

    from striate.data import open_data

    open_data(config.data)  # a wrong path is told before torch is loaded

    from striate.cli.console import print_evaluation, print_json, watching
    from striate.runs import finish
    from striate.training.session import TrainingInterrupted
    from striate.training.session import train as train_network

    interrupted = False
    with watching() as progress:
        try:
            training = train_network(config, progress)
        except TrainingInterrupted as stop:
            training, interrupted = stop.run, True
            progress.warn("interrupted; measuring and reporting what was reached (Ctrl-C again to leave it)")
        run = finish(training, progress)
    if as_json:
        print_json(run.to_json())
    else:
        print_evaluation(run.evaluation)
        print(f"model   {run.best}")
        print(f"report  {run.report}")
        print(f"next    striate predict {shlex.quote(str(run.best))} PHOTO.jpg")
    return INTERRUPTED_EXIT_CODE if interrupted else 0
