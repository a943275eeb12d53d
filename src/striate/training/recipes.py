"""Training recipes from the literature: find one by name and apply it to a run.

The recipes themselves are in the networks' files (`RECIPES`, see `striate.models`): the paper's own, and a
modern one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from striate import facts, models
from striate.errors import unknown_name
from striate.models.recipe import IMAGES, Recipe


def all_recipes() -> dict[str, Mapping[str, Recipe]]:
    """Every recipe: family of networks -> name -> recipe, in the order of `models.MODELS`."""
    return {row.family: recipes for model, row in models.MODELS.items() if (recipes := recipes_for(model))}


def recipes_for(model: str) -> Mapping[str, Recipe]:
    """The recipes of a network's family by name; empty if it has none.

    Raises:
        UsageError: unknown network.
    """
    recipes: Mapping[str, Mapping[str, Recipe]] = getattr(models.module_of(model), "RECIPES", {})
    return recipes.get(models.describe(model).family, {})


def find(model: str, name: str) -> Recipe:
    """The recipe with a name for a network.

    Raises:
        UsageError: there is no such recipe.
    """
    known = recipes_for(model)
    if name not in known:
        raise unknown_name(f"recipe for {model}", name, known, f"`striate recipes {model}` shows them")
    return known[name]


def apply(name: str, model: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The settings of a run that follows a recipe.

    Args:
        name: of the recipe.
        model: key of `models.MODELS`.
        given: fields of `ClassificationConfig` that the user set; they override the recipe. If they change
            the batch size but not the learning rate, the rate is scaled with the batch (Goyal et al. 2017).

    Returns:
        The fields, including `given`, and a sentence that names the source and each overridden setting.

    Raises:
        UsageError: there is no such recipe.
    """
    recipe = find(model, name)
    settings = {**recipe.settings, **given}
    changed = [
        f"{flag(field)} {given[field]} (the recipe has {value})"
        for field, value in recipe.settings.items()
        if field in given and given[field] != value
    ]
    batch = recipe.settings["batch"]
    if settings["batch"] != batch and "lr" not in given and isinstance(settings["batch"], int):
        settings["lr"] = recipe.settings["lr"] * settings["batch"] / batch
        changed.append(
            f"so the learning rate is {settings['lr']:.3g} (the recipe has {recipe.settings['lr']:g} for "
            f"{batch})"
        )
    message = f"recipe {name} for {model}: {recipe.source}"
    if changed:
        message += f"; you changed: {', '.join(changed)}"
    return {**settings, "recipe": name, "model": model}, message


def expected(model: str, recipe: Recipe) -> tuple[facts.Result, ...]:
    """The published results of a network trained with a recipe; empty if there are none."""
    if not recipe.results:
        return ()
    source, on = recipe.results
    return tuple(
        result
        for result in facts.RESULTS
        if result.network == model and result.source.startswith(source) and on in result.on
    )


def passes(recipe: Recipe) -> int:
    """How many times the source passes an image through the network in training: epochs times images."""
    return int(recipe.settings["epochs"]) * IMAGES[recipe.on]


def flag(field: str) -> str:
    """The command-line flag of a field of `ClassificationConfig`."""
    return f"--{field.replace('_', '-')}"
