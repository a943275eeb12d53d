"""Draw docs/images/transforms-*.jpg: what each transform does to a photograph.

The photograph is matplotlib's sample of Grace Hopper, a work of the U.S. Navy in the public domain.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib import cbook
from matplotlib.figure import Figure
from PIL import Image

from striate import transforms as T

HERE = Path(__file__).parent / "images"
SHOWN = 5

ONE = {  # what gives one result
    "Resize(96)": T.Resize(96),
    "Resize((96, 192))": T.Resize((96, 192)),
    "CenterCrop(160)": T.CenterCrop(160),
    "Grayscale()": T.Grayscale(3),
    "Compose([Resize(128),\nCenterCrop(112), ToTensor(),\nNormalize(...)]), shifted to 0-1": T.Compose(
        [T.Resize(128), T.CenterCrop(112), T.ToTensor(), T.Normalize([0.48, 0.46, 0.41], [0.23, 0.22, 0.23])]
    ),
}  # fmt: skip
RANDOM = {  # what is drawn anew for each sample
    "RandomCrop(192, padding=24)": T.RandomCrop(192, padding=24),
    "RandomResizedCrop(192)": T.RandomResizedCrop(192),
    "RandomHorizontalFlip()": T.RandomHorizontalFlip(),
    "RandomVerticalFlip()": T.RandomVerticalFlip(),
    "RandomRotation(30)": T.RandomRotation(30, "bilinear"),
    "RandomAffine(15, translate=(0.1, 0.1),\nscale=(0.7, 1.2), shear=15)": T.RandomAffine(
        15, (0.1, 0.1), (0.7, 1.2), 15, "bilinear"
    ),
    "ColorJitter(0.4, 0.4, 0.4, 0.1)": T.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "RandomGrayscale(0.5)": T.RandomGrayscale(0.5),
    "GaussianBlur(15, (0.5, 4))": T.GaussianBlur(15, (0.5, 4.0)),
    "RandomErasing(p=1)": T.RandomErasing(1.0),
    "TrivialAugmentWide()": T.TrivialAugmentWide(),
    "RandAugment()": T.RandAugment(),
    "AutoAugment()": T.AutoAugment(),
}


def main() -> None:
    """Draw all of them."""
    with cbook.get_sample_data("grace_hopper.jpg", asfileobj=True) as file:
        photograph = Image.open(file).convert("RGB").crop((0, 0, 512, 512)).resize((224, 224))
    torch.manual_seed(1)
    draw("transforms-one.jpg", {name: [change(photograph)] for name, change in ONE.items()}, across=True)
    batch = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None].repeat(SHOWN, 1, 1, 1)
    draw("transforms-random.jpg", {name: list(change(batch)) for name, change in RANDOM.items()})
    person = batch[0]
    others = torch.stack([person, person.flip(2), T.ColorJitter(hue=(0.3, 0.3))(person), person.flip(1)])
    generator = np.random.default_rng(4)
    mixed = {
        f"{kind.__name__}(alpha=1)": list(kind().mix(others, generator)[0]) for kind in (T.MixUp, T.CutMix)
    }
    draw("transforms-mixed.jpg", {"the batch": list(others)} | mixed)


def draw(name: str, rows: dict[str, list[object]], across: bool = False) -> None:
    """A row for each transform, or one row of all of them."""
    cells = [[pictures[0] for pictures in rows.values()]] if across else list(rows.values())
    shape = (len(cells), len(cells[0]))
    figure = Figure(figsize=(1.75 * shape[1] + (0 if across else 2.2), 1.75 * shape[0] + 0.4 * across))
    grid = figure.subplots(*shape, squeeze=False)
    for axes, pictures, label in zip(grid, cells, rows, strict=False):
        for place, picture in zip(axes, pictures, strict=True):
            place.imshow(shown(picture))
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
        if not across:
            axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    if across:
        for place, label in zip(grid[0], rows, strict=True):
            place.set_title(label, fontsize=7)
    figure.subplots_adjust(wspace=0.05, hspace=0.05)
    figure.savefig(HERE / name, dpi=90, bbox_inches="tight", facecolor="white")


def shown(picture: object) -> np.ndarray:
    """Something that matplotlib draws."""
    if isinstance(picture, torch.Tensor):
        values = picture.permute(1, 2, 0).numpy()
        if picture.is_floating_point():
            values = (values - values.min()) / (values.max() - values.min())
        return values
    return np.asarray(picture)


if __name__ == "__main__":
    main()
