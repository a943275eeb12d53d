"""`striate train`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from striate.cli.resume import go_on, show
from striate.training.config import TrainConfig, implied_model

_DEFAULT = TrainConfig(data="")
_DATA, _NETWORK, _LEARNING, _RUN = "Data", "Network", "Learning", "Run"


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Folder of class folders (with train/val/test above them or not), zip or tar of such, "
            "WebDataset shards, CSV or TSV, .npz, folder of idx files, or `digits`.",
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
        typer.Option(
            help="Random changes: auto, none, shift, light, scale, standard, strong.", rich_help_panel=_DATA
        ),
    ] = str(_DEFAULT.augment),
    views: Annotated[
        int,
        typer.Option(
            help="Fixed changes of each image, for which what is frozen computes once; 0 for new ones.",
            rich_help_panel=_DATA,
        ),
    ] = _DEFAULT.views,
    lighting: Annotated[
        float,
        typer.Option(help="Change the light as AlexNet does: deviation, 0 for none.", rich_help_panel=_DATA),
    ] = _DEFAULT.lighting,
    mixup: Annotated[
        float, typer.Option(help="Blend images of a batch: alpha, 0 for none.", rich_help_panel=_DATA)
    ] = _DEFAULT.mixup,
    cutmix: Annotated[
        float, typer.Option(help="Paste rectangles of them: alpha, 0 for none.", rich_help_panel=_DATA)
    ] = _DEFAULT.cutmix,
    val: Annotated[
        float, typer.Option(help="Share held out to choose the best epoch.", rich_help_panel=_DATA)
    ] = _DEFAULT.val,
    test: Annotated[
        float, typer.Option(help="Share held out for the last measurement.", rich_help_panel=_DATA)
    ] = _DEFAULT.test,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", help="Threads that decode.", rich_help_panel=_DATA)
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache", help="Keep decoded images for the next run.", rich_help_panel=_DATA
        ),
    ] = _DEFAULT.cache,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Network, by name; that of --weights if they say.", rich_help_panel=_NETWORK
        ),
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
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A way to train from the literature (`striate recipes`): paper, modern.",
            rich_help_panel=_LEARNING,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", "-e", help="Passes over the images.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.epochs,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for all of it, such as 10m, in place of --epochs.", rich_help_panel=_LEARNING
        ),
    ] = None,
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
    layer_decay: Annotated[
        float,
        typer.Option(
            help="Times the rate for each layer towards the input; 1 for none.", rich_help_panel=_LEARNING
        ),
    ] = _DEFAULT.layer_decay,
    opt: Annotated[
        str, typer.Option(help="adamw, sgd or rmsprop.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.opt,
    momentum: Annotated[
        float, typer.Option(help="Of sgd and rmsprop.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.momentum,
    nesterov: Annotated[
        bool, typer.Option("--nesterov/--no-nesterov", help="For sgd.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.nesterov,
    sched: Annotated[
        str, typer.Option(help="cosine, step or constant.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.sched,
    milestones: Annotated[
        str,
        typer.Option(
            help="For step: shares of the run, 0.5,0.75, or 1/75 for each 75th part.",
            rich_help_panel=_LEARNING,
        ),
    ] = _DEFAULT.milestones,
    gamma: Annotated[
        float, typer.Option(help="Times the rate at each milestone.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.gamma,
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which the rate rises.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.warmup,
    weight_decay: Annotated[
        float | None, typer.Option(help="Not on biases and norms.", rich_help_panel=_LEARNING)
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="0 for none, 0.1 is usual.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.label_smoothing,
    dropout: Annotated[
        float | None, typer.Option(help="Of all dropout layers.", rich_help_panel=_LEARNING)
    ] = None,
    drop_path: Annotated[
        float,
        typer.Option(
            help="Stochastic depth: chance of the last block to be left out.", rich_help_panel=_LEARNING
        ),
    ] = _DEFAULT.drop_path,
    grad_clip: Annotated[
        float, typer.Option(help="Largest gradient norm; 0 for no limit.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.grad_clip,
    accumulate: Annotated[
        int,
        typer.Option(help="Parts that a batch is cut into to save memory.", rich_help_panel=_LEARNING),
    ] = _DEFAULT.accumulate,
    sync_bn: Annotated[
        bool,
        typer.Option(
            "--sync-bn", help="BatchNorm over all processes of torchrun.", rich_help_panel=_LEARNING
        ),
    ] = _DEFAULT.sync_bn,
    ema: Annotated[
        float,
        typer.Option(help="Decay of the weights' moving average; 0 for none.", rich_help_panel=_LEARNING),
    ] = _DEFAULT.ema,
    amp: Annotated[
        bool | None,
        typer.Option("--amp/--no-amp", help="Mixed precision.", rich_help_panel=_LEARNING),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Make kernels for the network first.", rich_help_panel=_LEARNING),
    ] = _DEFAULT.compile,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without a better one.", rich_help_panel=_LEARNING)
    ] = _DEFAULT.patience,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.", rich_help_panel=_RUN)] = _DEFAULT.seed,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_RUN)
    ] = _DEFAULT.device,
    save_every: Annotated[
        int,
        typer.Option(help="Steps from one saved state to the next; 0 for a minute.", rich_help_panel=_RUN),
    ] = _DEFAULT.save_every,
    rollbacks: Annotated[
        int,
        typer.Option(
            help="Times to go back, with half the rate, when the loss is not finite.", rich_help_panel=_RUN
        ),
    ] = _DEFAULT.rollbacks,
    profile: Annotated[
        bool, typer.Option("--profile", help="Measure where the time goes.", rich_help_panel=_RUN)
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Look for a learning rate, and do not train.", rich_help_panel=_RUN),
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", help="A run's folder to go on with.", rich_help_panel=_RUN)
    ] = None,
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
    from striate.errors import UsageError

    options = {
        "imgsz": imgsz, "channels": channels, "resize": resize, "augment": augment, "views": views,
        "lighting": lighting, "mixup": mixup, "cutmix": cutmix,
        "val": val, "test": test, "workers": workers, "cache": cache, "model": model, "weights": weights,
        "transfer": transfer, "last_layers": last_layers, "normalize": normalize, "backbone_lr": backbone_lr,
        "epochs": epochs, "budget": budget, "batch": batch, "lr": lr,
        "layer_decay": layer_decay, "opt": opt, "momentum": momentum, "nesterov": nesterov, "sched": sched,
        "milestones": milestones, "gamma": gamma, "warmup": warmup, "weight_decay": weight_decay,
        "dropout": dropout, "drop_path": drop_path,
        "label_smoothing": label_smoothing, "grad_clip": grad_clip, "accumulate": accumulate,
        "sync_bn": sync_bn, "ema": ema, "amp": amp, "compile": compile,
        "patience": patience, "seed": seed, "device": device, "save_every": save_every,
        "rollbacks": rollbacks, "profile": profile, "name": name, "out": out,
    }  # fmt: skip
    if resume is not None:
        given = {name: value for name, value in options.items() if _was_given(context, name)}
        return go_on(resume, {"data": data or data_flag, **given}, as_json)
    if (data is None) == (data_flag is None):
        raise UsageError("no data to train on" if data is None else "two data sets", "", "Give one folder")
    if not _was_given(context, "model"):
        options["model"] = implied_model(weights) or model
    if recipe is not None:
        options |= _of_recipe(recipe, str(options["model"]), context, options)
    try:
        config = TrainConfig(data=data or data_flag or "", **options)  # type: ignore[arg-type]  # checked there
    except UsageError as error:
        raise UsageError(_as_flags(error.what), error.why, error.fix) from error

    if find_lr:
        return _find_rate(config, as_json)

    from striate.training import ahead

    return show(lambda progress: ahead.train(config, progress), as_json)


def _of_recipe(name: str, model: str, context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, but for those that the user names; what they are is said."""
    from striate.cli.console import watching
    from striate.training.recipes import apply

    given = {field: value for field, value in options.items() if _was_given(context, field)}
    settings, said = apply(name, model, given)
    with watching() as progress:
        progress.info(said)
    return settings


def _find_rate(config: TrainConfig, as_json: bool) -> int:
    from striate.cli.console import print_json, watching
    from striate.report.rates import write_rates
    from striate.training.finder import find_rate

    with watching() as progress:
        found = find_rate(config, progress)
        picture = write_rates(found)
    if as_json:
        print_json({**found.to_json(), "picture": str(picture)})
    else:
        print(
            f"learning rate  {found.rate:.2g}  (a tenth of the rate of the lowest loss, {found.lowest:.2g})"
        )
        print(f"curve          {picture}")
        print(f"next           the same command with --lr {found.rate:.2g} in place of --find-lr")
    return 0


def _as_flags(what: str) -> str:
    """What is wrong with a field, in terms of its flag: `lr = -1.0` as `--lr -1.0`."""
    field, equals, value = what.partition(" = ")
    return f"--{field.replace('_', '-')} {value}" if equals and field.isidentifier() else what


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
