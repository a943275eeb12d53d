"""Training recipes: settings from the literature, with their sources, published results and cost."""

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import Messages, make_images

import striate
from striate import cli, facts
from striate.anatomy import trace
from striate.anatomy.limits import A100, RTX_3090, seconds, training_cost
from striate.errors import UsageError
from striate.models import MODELS
from striate.models.recipe import IMAGES
from striate.tasks.classification.config import ClassificationConfig
from striate.training.recipes import all_recipes, apply, expected, find, passes, recipes_for

RECIPES = all_recipes()
ALL = [(key, name) for key, recipes in RECIPES.items() for name in recipes]


def test_every_network_has_a_recipe_of_its_paper_and_a_modern_one():
    for model in MODELS:
        assert {"paper", "modern"} <= recipes_for(model).keys()
    assert {row.family for row in MODELS.values()} == set(RECIPES)


@pytest.mark.parametrize(("key", "name"), ALL)
def test_settings_are_valid_options(key, name):
    recipe = RECIPES[key][name]
    model = next(model for model, row in MODELS.items() if row.family == key)
    settings, message = apply(name, model, {})
    config = ClassificationConfig("x", **settings)
    assert {field: getattr(config, field) for field in recipe.settings} == dict(recipe.settings)
    assert (config.recipe, config.model) == (name, model)
    assert message == f"recipe {name} for {model}: {recipe.source}"
    for field in ("opt", "batch", "epochs", "lr", "sched", "warmup", "weight_decay", "augment"):
        assert field in recipe.settings, f"{field} would depend on a default that may change"
    assert recipe.on in IMAGES


def test_printed_settings_can_be_pasted_back_as_flags(monkeypatch, capsys):
    received = []
    monkeypatch.setattr(
        "striate.cli.train.train_and_print", lambda data, options, _: received.append(options) or 0
    )
    for model in ("mobilenet_v3_large", "googlenet", "lenet"):
        assert cli.run(["recipes", model]) == 0
        lines = [
            line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if "  settings" in line
        ]
        for recipe, flags in zip(recipes_for(model).values(), lines, strict=True):
            assert cli.run(["train", "DATA", *shlex.split(flags)]) == 0
            assert received.pop() == {"task": "classification", "config": None, **recipe.settings}


def test_the_list_of_recipes_can_be_pasted_too(monkeypatch, capsys):
    received = []
    monkeypatch.setattr(
        "striate.cli.train.train_and_print", lambda data, options, _: received.append(options) or 0
    )
    assert cli.run(["recipes"]) == 0
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("lenet         paper")
    ]
    flags = line[line.index("--") :].split("  ")[0]
    assert cli.run(["train", "DATA", *shlex.split(flags)]) == 0
    settings = find("lenet", "paper").settings
    assert received == [
        {"task": "classification", "config": None}
        | {n: settings[n] for n in ("epochs", "batch", "opt", "lr")}
    ]


@pytest.mark.parametrize(("key", "name"), [pair for pair in ALL if RECIPES[pair[0]][pair[1]].results])
def test_results_are_published_ones(key, name):
    """Each recipe that claims any has some, for a network of its family, out of facts.py."""
    found = {model: expected(model, RECIPES[key][name]) for model, row in MODELS.items() if row.family == key}
    assert any(found.values())
    for model, results in found.items():
        assert all(result.network == model and result in facts.RESULTS for result in results)


def test_numbers_of_the_papers():
    """As printed: epochs from the papers' steps, and well-known results."""
    assert 600_000 * 256 / IMAGES["ImageNet"] == pytest.approx(
        find("resnet50", "paper").settings["epochs"], abs=0.2
    )
    assert 370_000 * 256 / IMAGES["ImageNet"] == pytest.approx(
        find("vgg16", "paper").settings["epochs"], abs=0.2
    )
    cifar = find("resnet20", "paper")
    assert cifar.settings["epochs"] == pytest.approx(64_000 * 128 / 45_000, abs=0.1)
    steps_of_vit = 300 * IMAGES["ImageNet"] / 4096
    assert 10_000 / steps_of_vit == pytest.approx(find("vit_b_16", "paper").settings["warmup"], abs=1e-3)
    (result,) = expected("resnet56", cifar)
    assert (result.measure, result.percent) == ("error", 6.97)
    assert [r.percent for r in expected("resnet50", find("resnet50", "modern"))] == [80.858, 95.434]
    assert [r.percent for r in expected("vit_s_16", find("vit_s_16", "modern"))] == [79.8]
    assert [r.percent for r in expected("vit_b_16", find("vit_b_16", "paper"))] == [77.91]
    assert expected("googlenet", find("googlenet", "modern")) == ()


def test_options_of_the_user_override_the_recipe_with_a_message():
    settings, message = apply("modern", "resnet50", {"epochs": 20, "batch": 64, "momentum": 0.9})
    assert (settings["epochs"], settings["batch"], settings["cutmix"]) == (20, 64, 1.0)
    assert settings["lr"] == pytest.approx(0.5 * 64 / 1024)
    assert "--epochs 20 (the recipe has 600)" in message
    assert "the learning rate is 0.0312 (the recipe has 0.5 for 1024)" in message
    assert "momentum" not in message  # the same as the recipe's
    assert apply("modern", "resnet50", {"batch": 64, "lr": 0.3})[0]["lr"] == 0.3


def test_an_unknown_recipe_has_near_matches_and_the_command_that_lists_them():
    with pytest.raises(UsageError, match=r"did you mean modern.*striate recipes vgg16"):
        find("vgg16", "moderne")
    with pytest.raises(UsageError, match="striate recipes resnet18"):
        find("resnet18", "finetune")


def test_costs_are_counted():
    recipe = find("resnet50", "paper")
    assert passes(recipe) == 120 * 1_281_167
    macs, hours = training_cost("resnet50", passes(recipe), A100)
    assert macs == 3 * 4_089_184_256 * passes(recipe)
    assert (
        hours > 6 * 4_089_184_256 * passes(recipe) / A100.flops / 3600
    )  # never above what arithmetic allows


def test_a_run_by_recipe(tmp_path):
    for name, color in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        make_images(tmp_path / "data" / name, 10, color)

    messages = Messages()
    run = striate.train(
        tmp_path / "data",
        progress=messages,
        model="resnet20",
        recipe="modern",
        epochs=1,
        batch=8,
        out=str(tmp_path),
    )
    config = run.training.config
    assert (config.recipe, config.drop_path, config.nesterov, config.epochs) == ("modern", 0.5, True, 1)
    assert config.lr == pytest.approx(0.1 * 8 / 128)
    assert any(line.startswith("recipe modern for resnet20: Huang") for line in messages.infos)


def test_the_command_lists_recipes(capsys):
    from striate import cli

    assert cli.run(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["recipes"]
    assert [(row["family"], row["recipe"]) for row in rows] == ALL
    assert cli.run(["recipes", "mobilenet_v3_large"]) == 0
    out = capsys.readouterr().out
    assert "--opt rmsprop" in out
    assert "top-1 accuracy 75.2 %" in out
    assert "(an estimate)" in out


def test_flags_override_the_recipe(tmp_path, capsys):
    from striate import cli

    make_images(tmp_path / "data" / "a", 6, (200, 40, 40))
    make_images(tmp_path / "data" / "b", 6, (40, 40, 200))
    argv = ["train", str(tmp_path / "data"), "--model", "lenet", "--recipe", "modern", "--epochs", "1"]
    assert (
        cli.run(
            [*argv, "--imgsz", "32", "--out", str(tmp_path), "--name", "run", "--test", "0.2", "--val", "0.2"]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "recipe modern for lenet" in captured.err
    assert "--epochs 1 (the recipe has 20)" in captured.err
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "recipe: modern" in text
    assert "augment: shift" in text
    assert "epochs: 1\n" in text


def test_the_page_lists_all_recipes():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "| `" in line
    ]
    shown = {(row[0], row[1].strip("`")): row for row in rows if len(row) == 8}
    assert list(shown) == ALL
    for (key, name), row in shown.items():
        settings = RECIPES[key][name].settings
        assert row[2:5] == [
            f"{settings['opt']} {settings['lr']:g}",
            str(settings["batch"]),
            str(settings["epochs"]),
        ]
        assert row[7] == RECIPES[key][name].source
        for cell in row[6].split(", "):
            field, _, value = cell.replace("`", "").partition(" ")
            assert str(settings[field]) == value or settings[field] is True or f"{settings[field]:g}" == value
    low, high = re.search(r"are ([\d.]+) to ([\d.]+) of that roofline", page).groups()
    reached = [
        rate * seconds(trace(model), RTX_3090, training=training)
        for model, pair in facts.RTX_3090_IMAGES_PER_SECOND.items()
        for rate, training in zip(pair, (True, False), strict=True)
    ]
    assert min(reached) == pytest.approx(float(low), abs=0.05)
    assert max(reached) == pytest.approx(float(high), abs=0.01)
