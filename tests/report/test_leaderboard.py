"""A leaderboard: which runs share a row, how datasets are named, and the interval between seeds."""

import re
import shutil

import numpy as np
import pytest

from striate import bundle
from striate.report.leaderboard import leaderboard


@pytest.fixture
def add(run, tmp_path):
    """Add a copy of a run with this accuracy of 10 test images, and other options."""

    def copy(name, top1, **options):
        folder = shutil.copytree(run.training.folder, tmp_path / name)
        config = (folder / "config.yaml").read_text("utf-8")
        for option, value in options.items():
            config = re.sub(rf"(?m)^{option}: .*$", f"{option}: {value}", config)
        (folder / "config.yaml").write_text(config, "utf-8")
        bundle.add_metrics(folder / "best.safetensors", {"test": {"top1": top1, "n": 10}})
        return folder

    return copy


def test_seeds_with_other_test_images_share_training_images(run, add, tmp_path):
    """Their interval is Nadeau and Bengio's; with the same test images it is Student's t."""

    def half():
        (place,), _ = leaderboard(tmp_path)
        return (place.interval[1] - place.interval[0]) / 2

    folders = [add("a", 0.49), add("b", 0.51, seed=7)]
    t = 12.706 * np.std([0.49, 0.51], ddof=1)
    trained = bundle.describe(run.best).provenance["training_images"]
    assert half() == pytest.approx(t * np.sqrt(1 / 2), abs=1e-4)
    table = (folders[0] / "split.csv").read_text("utf-8")
    swapped = re.sub(
        ",(train|test)(?=\n)", lambda found: f",{'test' if found[1] == 'train' else 'train'}", table
    )
    (folders[0] / "split.csv").write_text(swapped, "utf-8")
    assert half() == pytest.approx(t * np.sqrt(1 / 2 + 10 / trained), abs=1e-4)
    for folder in folders:  # the data have their own splits
        (folder / "split.csv").unlink()
    assert half() == pytest.approx(t * np.sqrt(1 / 2), abs=1e-4)


def test_names_and_copies(add, tmp_path):
    add("a", 0.5, data="/x/flowers")
    add("a-copy", 0.5, data="/x/flowers")
    add("b", 0.6, data="/y/flowers")
    first, second = leaderboard(tmp_path)[0]
    assert (first.dataset, first.repeated) == ("x/flowers", "2 runs with the same seed")
    assert (second.dataset, second.repeated) == ("y/flowers", "")
