"""`striate recipes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from striate.training.recipes import Recipe


def recipes(
    model: Annotated[
        str | None, typer.Argument(help="A network: all about its recipes.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Show the ways to train from the literature, for `striate train --recipe NAME`.

    Python: striate.train("flowers/", model="resnet50", recipe="modern")
    """
    from striate.cli.console import print_json
    from striate.training.recipes import RECIPES, family, passes

    if model is None:
        rows = [
            {
                "family": key,
                "recipe": name,
                **_setting(recipe),
                "passes": passes(recipe),
                "source": recipe.source,
            }
            for key, recipes in RECIPES.items()
            for name, recipe in recipes.items()
        ]
        if as_json:
            print_json({"recipes": rows})
            return 0
        for row in rows:
            rate = f"{row['opt']} {row['lr']:g}, batch {row['batch']}, {row['epochs']} epochs"
            print(f"{row['family']:13} {row['recipe']:9} {rate:40} {row['source']}")
        print("\n`striate recipes MODEL` tells settings, cost and published results of a network's recipes")
        return 0
    found = {name: _told(model, recipe) for name, recipe in RECIPES[family(model)].items()}
    if as_json:
        print_json({"model": model, "recipes": found})
        return 0
    for name, told in found.items():
        print(f"{name}: {told['source']}")
        flags = " ".join(f"{_flag(field)} {_value(value)}" for field, value in told["settings"].items())
        print(f"  settings  {flags}")
        cost = told["cost"]
        print(
            f"  cost      {cost['passes']:,} passes of an image ({told['on']}), "
            f"{cost['macs']:.2g} multiply-adds, about {cost['gpu_hours']:,.2g} hours on one {cost['gpu']} "
            "(an estimate)"
        )
        for result in told["results"]:
            print(
                f"  result    {result['measure']} {result['percent']} %, {result['on']} ({result['source']})"
            )
        if not told["results"]:
            print(f"  result    none is published for {model} that this project knows")
        for note in told["notes"]:
            print(f"  note      {note}")
        print(f"  use       striate train DATA --model {model} --recipe {name}\n")
    return 0


def _setting(recipe: Recipe) -> dict[str, Any]:
    return {field: recipe.settings[field] for field in ("opt", "lr", "batch", "epochs")}


def _told(model: str, recipe: Recipe) -> dict[str, Any]:
    """All about one recipe as plain values; traces the network for its cost."""
    import dataclasses

    from striate.anatomy.limits import A100, training_cost
    from striate.training.recipes import expected, passes

    macs, hours = training_cost(model, passes(recipe), A100)
    return {
        "source": recipe.source,
        "on": recipe.on,
        "settings": dict(recipe.settings),
        "cost": {
            "passes": passes(recipe),
            "macs": macs,
            "gpu_hours": hours,
            "gpu": A100.name,
            "estimate": True,
        },
        "results": [dataclasses.asdict(result) for result in expected(model, recipe)],
        "notes": list(recipe.notes),
    }


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
