"""Data for the tasks of seq2seq_tasks.py, generated from a seed or from local datasets.

Each function writes files that `striate seq2seq train` reads, with what is unseen kept apart: strings, dates,
headwords, words and fonts.
"""

from __future__ import annotations

import datetime
import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from striate.data import open_data

LETTERS = "abcdefghijklmnopqrst"
# Families without a clone or sibling among the others (Nimbus Sans is one of Liberation Sans).
UNSEEN = ("DejaVu Serif", "Liberation Mono", "P052", "URW Bookman")
NOT_LETTERS = ("D050000L", "StandardSymbols", "Symbol", "Fallback", "Emoji", "Math", "Dingbats")
WHITE = 255


def reverse(folder: Path, count: int, seed: int) -> None:
    """Strings of 5 to 20 letters and the same backwards; no string is in two splits."""
    rng = random.Random(seed)
    strings: dict[str, None] = {}
    while len(strings) < count + 2_000:
        strings["".join(rng.choices(LETTERS, k=rng.randint(5, 20)))] = None
    rows = [(text, text[::-1]) for text in strings]
    write_splits(folder, rows[:count], rows[count : count + 1_000], rows[count + 1_000 :])


def dates(folder: Path, count: int, seed: int) -> None:
    """Dates of 1900 to 2099 as people write them, and in ISO 8601; no date is in two splits."""
    rng = random.Random(seed)
    first = datetime.date(1900, 1, 1)
    days = list(range((datetime.date(2100, 1, 1) - first).days))
    rng.shuffle(days)
    found = [first + datetime.timedelta(day) for day in days[: count + 2_000]]
    rows = [(written(date, rng), date.isoformat()) for date in found]
    write_splits(folder, rows[:count], rows[count : count + 1_000], rows[count + 1_000 :])


def written(date: datetime.date, rng: random.Random) -> str:
    """A date in one of ten forms; the day comes before the month if both are numbers."""
    day, month, year = date.day, date.strftime("%B"), date.year
    suffix = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    forms = (
        f"{day} {month} {year}", f"{month} {day}, {year}", f"{month} {day}{suffix}, {year}",
        f"{day}.{date.month}.{year}", f"{day:02}/{date.month:02}/{year}", f"{date:%A}, {day} {month} {year}",
        f"{month[:3]} {day} {year}", f"the {day}{suffix} of {month} {year}",
        f"{year}/{date.month:02}/{day:02}", f"{date:%a} {day}-{month[:3]}-{year}",
    )  # fmt: skip
    return rng.choice(forms)


def pronunciations(path: Path, seed: int) -> dict[str, list[tuple[str, list[str]]]]:
    """Headwords with their pronunciations, split by headword: 85 % train, 5 % val, 10 % test."""
    words: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        head, _, phonemes = line.split("#")[0].strip().partition(" ")
        if phonemes:
            words.setdefault(re.sub(r"\(\d+\)$", "", head), []).append(phonemes.strip())
    splits: dict[str, list[tuple[str, list[str]]]] = {"train": [], "val": [], "test": []}
    for word, several in words.items():
        share = int(hashlib.sha256(f"{seed} {word}".encode()).hexdigest()[:8], 16) / 16**8
        name = "val" if share < 0.05 else "test" if share < 0.15 else "train"
        splits[name].append((word, list(dict.fromkeys(several))))
    return splits


def fonts() -> dict[str, list[Path]]:
    """The installed fonts with Latin letters, by family."""
    listed = subprocess.run(
        ["fc-list", ":lang=en", "file", "family", "fontformat"], capture_output=True, text=True, check=True
    )
    found: dict[str, list[Path]] = {}
    for line in sorted(listed.stdout.splitlines()):
        file, _, rest = line.partition(": ")
        family = rest.split(",")[0].split(":")[0]
        if Path(file).suffix.lower() in (".ttf", ".otf") and not any(name in file for name in NOT_LETTERS):
            found.setdefault(family, []).append(Path(file))
    return found


def divide_fonts(families: dict[str, list[Path]]) -> tuple[list[Path], list[Path]]:
    """Fonts for training, and the fonts of unseen families."""
    seen = [path for name in sorted(families) if name not in UNSEEN for path in families[name]]
    unseen = [path for name in UNSEEN for path in families.get(name, [])]
    if not seen or not unseen:
        sys.exit(f"fonts are missing: the package of any of {', '.join(UNSEEN)}, and of others")
    return seen, unseen


def rendered(word: str, font: Path, rng: np.random.Generator) -> Image.Image:
    """A word as an image, with random size, place, skew, rotation, ink, paper, blur and noise."""
    size = int(rng.integers(22, 44))
    letters = ImageFont.truetype(str(font), size)
    left, top, right, bottom = letters.getbbox(word)
    margins = rng.integers(2, 9, 4)
    width, height = int(right - left + margins[0] + margins[1]), int(bottom - top + margins[2] + margins[3])
    page = Image.new("L", (width, height), 0)
    ImageDraw.Draw(page).text((int(margins[0] - left), int(margins[2] - top)), word, fill=255, font=letters)
    skew, turn = float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-3, 3))
    wider = int(abs(skew) * height) + 1
    start = skew * height if skew > 0 else 0.0
    page = page.transform(
        (width + wider, height), Image.Transform.AFFINE, (1, skew, -start, 0, 1, 0),
        resample=Image.Resampling.BILINEAR,
    )  # fmt: skip
    page = page.rotate(turn, resample=Image.Resampling.BILINEAR, expand=True)
    if rng.random() < 0.5:
        page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.1))))
    paper, ink = float(rng.uniform(170, 255)), float(rng.uniform(0, 90))
    if rng.random() < 0.15:
        paper, ink = ink, paper  # bright on dark
    mask = np.asarray(page, np.float32) / 255
    pixels = paper + (ink - paper) * mask + rng.normal(0, rng.uniform(0, 18), mask.shape)
    return Image.fromarray(np.clip(pixels, 0, WHITE).astype(np.uint8))


def words(folder: Path, vocabulary: Sequence[str], count: int, seed: int) -> dict[str, list[str]]:
    """Words in many fonts; `lines.csv`, and `fonts.csv` with unseen words in unseen fonts.

    Returns:
        The families of the fonts on both sides.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(vocabulary))
    held = max(1, len(order) // 10)
    parts = {"val": order[:held], "test": order[held : 2 * held], "train": order[2 * held :]}
    families = fonts()
    seen, unseen = divide_fonts(families)
    tables = {"lines": ["path,text,split"], "fonts": ["path,text,split"]}
    for split, table, faces, n in (
        ("train", "lines", seen, count), ("val", "lines", seen, 500), ("test", "lines", seen, 1_000),
        ("test", "fonts", unseen, 1_000),
    ):  # fmt: skip
        place = folder / f"{split}-{table}"
        place.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            word = vocabulary[int(rng.choice(parts[split]))]
            word = word.capitalize() if rng.random() < 0.2 else word
            rendered(word, faces[int(rng.integers(len(faces)))], rng).save(place / f"{i}.png")
            tables[table].append(f"{place.name}/{i}.png,{word},{split}")
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return {
        "seen": sorted(f for f in families if families[f][0] in seen),
        "unseen": sorted(f for f in families if families[f][0] in unseen),
    }


def digits(folder: Path, source: Path, count: int, seed: int) -> None:
    """Strings of 1 to 6 MNIST digits with random gaps and heights; the test split uses MNIST's test set."""
    rng = np.random.default_rng(seed)
    rows = ["path,text,split"]
    mnist = open_data(source)
    train, test = mnist.splits["train"], mnist.splits["test"]
    for split, samples, which, n in (
        ("train", train, range(55_000), count),
        ("val", train, range(55_000, 60_000), 500),
        ("test", test, range(10_000), 2_000),
    ):
        images, labels = samples.pixels, samples.labels
        assert images is not None
        place = folder / split
        place.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            chosen = rng.choice(np.array(which), rng.integers(1, 7))
            page = np.zeros((36, 34 * len(chosen) + 8), np.uint8)
            x = int(rng.integers(0, 6))
            for k in chosen:
                y = int(rng.integers(0, 9))
                part = page[y : y + 28, x : x + 28]
                np.maximum(part, images[k], out=part)
                x += int(rng.integers(22, 34))
            Image.fromarray(page[:, : x + 8]).save(place / f"{i}.png")
            rows.append(f"{split}/{i}.png,{''.join(mnist.classes[labels[k]] for k in chosen)},{split}")
    (folder / "lines.csv").write_text("\n".join(rows) + "\n", "utf-8")


def write_splits(folder: Path, *splits: Iterable[tuple[str, str]]) -> None:
    """`train.tsv`, `val.tsv` and `test.tsv`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(("train", "val", "test"), splits, strict=True):
        (folder / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
