"""`striate recipes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Json

if TYPE_CHECKING:
    from striate.models.recipe import Recipe


def recipes(
    model: Annotated[
        str | None, typer.Argument(metavar="NETWORK", help="Show the recipes of this network in detail.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show training recipes from the literature, with their cost and published results.

    `striate train --recipe NAME` uses one: `paper` has the settings of the network's paper, `modern` newer
    published settings.

    Python: from striate.training.recipes import recipes_for; recipes_for("resnet50")
    """
    from striate.cli.console import print_json
    from striate.training.recipes import recipes_for

    if model is None:
        rows = _overview()
        if as_json:
            print_json({"recipes": rows})
            return
        for row in rows:
            values = {field: row[field] for field in SUMMARY}
            print(f"{row['family']:13} {row['recipe']:9} {_flags(values):50} {row['source']}")
        print("\n`striate recipes NETWORK` shows settings, cost and published results of one network")
        return
    details = {name: _details(model, recipe) for name, recipe in recipes_for(model).items()}
    if as_json:
        print_json({"model": model, "recipes": details})
        return
    if not details:
        print(f"there is no recipe for {model}")
    for name, recipe in details.items():
        _print_recipe(model, name, recipe)


SUMMARY = ("opt", "lr", "batch", "epochs")  # the settings that the list of all recipes shows


def _flags(settings: dict[str, Any]) -> str:
    """Settings as flags of `striate train`."""
    from striate.tasks.classification.config import ClassificationConfig
    from striate.training.options import as_flags

    return as_flags(ClassificationConfig, settings)


def _overview() -> list[dict[str, Any]]:
    """One row for each recipe of each family of networks."""
    from striate.training.recipes import all_recipes, passes

    return [
        {
            "family": family,
            "recipe": name,
            **{field: recipe.settings[field] for field in SUMMARY},
            "passes": passes(recipe),
            "source": recipe.source,
        }
        for family, recipes in all_recipes().items()
        for name, recipe in recipes.items()
    ]


def _details(model: str, recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values; traces the network to compute the cost."""
    import dataclasses

    from striate.anatomy.limits import A100, training_cost
    from striate.training.recipes import expected, passes

    macs, hours = training_cost(model, passes(recipe), A100)
    return {
        "source": recipe.source,
        "on": recipe.on,
        "settings": dict(recipe.settings),
        "cost": {
            "passes": passes(recipe), "macs": macs, "gpu_hours": hours, "gpu": A100.name, "estimate": True,
        },
        "results": [dataclasses.asdict(result) for result in expected(model, recipe)],
        "notes": list(recipe.notes),
    }  # fmt: skip


def _duration(hours: float) -> str:
    """Hours, or minutes or seconds, with two digits."""
    if hours >= 1:
        return f"{float(f'{hours:.2g}'):,g} hours"
    return f"{60 * hours:.2g} minutes" if hours >= 1 / 60 else f"{3600 * hours:.2g} seconds"


def _print_recipe(model: str, name: str, recipe: dict[str, Any]) -> None:
    print(f"{name}: {recipe['source']}")
    print(f"  settings  {_flags(recipe['settings'])}")
    cost = recipe["cost"]
    print(
        f"  cost      {cost['passes']:,} image passes ({recipe['on']}), {cost['macs']:.2g} MACs, "
        f"about {_duration(cost['gpu_hours'])} on one {cost['gpu']} (an estimate)"
    )
    for result in recipe["results"]:
        print(f"  result    {result['measure']} {result['percent']} %, {result['on']} ({result['source']})")
    if not recipe["results"]:
        print(f"  result    no published result for {model}")
    for note in recipe["notes"]:
        print(f"  note      {note}")
    print(f"  use       striate train DATA --model {model} --recipe {name}\n")
