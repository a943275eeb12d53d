"""Trials are functions of the seed and their number, inside of the ranges that the page says."""

import numpy as np
import pytest

from striate.studies.search_space import sample, transfers
from striate.tasks.classification.config import ClassificationConfig


def config_of(**options):
    return ClassificationConfig("x", **{"model": "resnet18", **options})


def test_trials_depend_on_the_seed_and_the_number_only():
    one = [sample(config_of(), number, [], 3) for number in range(20)]
    assert one == [sample(config_of(epochs=3), number, [], 3) for number in range(20)]
    assert one[0] == {}
    assert len({trial["lr"] for trial in one[1:]}) > 15
    assert sample(config_of(seed=1), 1, [], 3) != one[1]


def test_values_are_log_uniform_around_the_defaults():
    config = config_of()
    trials = [sample(config, number, [], 3) for number in range(1, 600)]
    rates = np.log10([trial["lr"] / config.peak_lr for trial in trials])
    decays = np.log10([trial["weight_decay"] / config.decay for trial in trials])
    for powers, (low, high) in ((rates, (-1, 1)), (decays, (-1.5, 1.5))):
        assert powers.min() > low - 0.03
        assert powers.max() < high + 0.03  # rounded to two digits
        assert np.quantile(powers, [0.25, 0.75]) == pytest.approx([low / 2, high / 2], abs=0.2)
    assert {trial["augment"] for trial in trials} == {"none", "light", "standard", "strong"}


def test_images_and_weights_decide_what_is_searched():
    gray = [sample(config_of(), number, [], 1) for number in range(1, 40)]
    assert {trial["augment"] for trial in gray} == {"none", "shift"}  # text must not be mirrored
    assert {trial["augment"] for n in range(1, 60) for trial in [sample(config_of(), n, [], 8)]} == {
        "none", "light", "standard",
    }  # fmt: skip
    assert all("transfer" not in trial for trial in gray)
    pretrained = config_of(weights="imagenet")
    assert transfers(pretrained) == ("all", "last", "head")
    assert transfers(config_of(weights="imagenet", unfreeze_every=2)) == ("all", "last")
    trials = [sample(pretrained, number, [], 3) for number in range(1, 60)]
    assert {trial["transfer"] for trial in trials} == {"all", "last", "head"}
    heads = [trial for trial in trials if trial["transfer"] == "head"]
    assert {trial["augment"] for trial in heads} == {"none"}
    assert max(trial["lr"] for trial in heads) > 1e-2  # around 0.003, the default of one new layer


def test_what_the_user_chose_stays_and_changes_nothing_else():
    free = sample(config_of(), 5, [], 3)
    fixed = sample(config_of(lr=0.5), 5, ["lr"], 3)
    assert fixed == {name: value for name, value in free.items() if name != "lr"}
    head = sample(config_of(weights="imagenet", transfer="head"), 5, ["transfer"], 3)
    assert head["augment"] == "none"
    assert "transfer" not in head
