"""Each kind of trouble is planted, and found under its name."""

import io
import os
import shutil
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from PIL import Image, ImageFilter

import striate
from striate.csv_file import read_table
from striate.data import DataSet, Samples, SplitPlan, open_data, split
from striate.data.check import check, quick_check, quick_summary
from striate.errors import DataError
from striate.files import write_atomic


def photo(seed, size=(120, 90)):
    """A made-up photograph: patches of color with edges and grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize(size, Image.Resampling.NEAREST), np.float64)
    return Image.fromarray(np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def root(tmp_path):
    """Two classes of sixty sound photographs."""
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(60):
            photo(100 * c + i).save(tmp_path / "data" / name / f"{i:02}.jpg", quality=92)
    return tmp_path / "data"


def found(root):
    """Kind -> the names of its files, group by group."""
    return {
        finding.kind: [[os.path.relpath(i.path, root) for i in group] for group in finding.groups]
        for finding in check(root, workers=2).findings
    }


def test_sound_photographs_have_no_findings(root):
    report = striate.check(root)
    assert (report.n, report.findings, report.serious) == (120, (), False)
    assert report.classes == {"cat": 60, "dog": 60}


def png_header(width, height):
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return (
        b"\x89PNG\r\n\x1a\n\0\0\0\r" + body + zlib.crc32(body).to_bytes(4, "big") + b"\0\0\0\x01IDATx\0\0\0\0"
    )


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


FILES = {
    "empty": ("x.jpg", b""),
    "truncated": ("x.jpg", encoded(photo(7))[:-400]),
    "unreadable": ("x.png", b"a text that is no picture"),
    "bomb": ("x.png", png_header(60_000, 60_000)),
    "wrong-name": ("x.png", encoded(photo(7))),
    "animated": (
        "x.gif",
        encoded(photo(7), "GIF", save_all=True, append_images=[photo(8)]),
    ),
    "not-rgb": ("x.jpg", encoded(photo(7).convert("CMYK"))),
    "deep": ("x.png", encoded(Image.fromarray(np.asarray(photo(7).convert("L")) * np.uint16(257)), "PNG")),
    "turned": ("x.jpg", encoded(photo(7), exif=exif(6))),
    "odd-one-out": ("x.jpg", encoded(Image.new("RGB", (120, 90), "white"))),
    "dark": ("x.jpg", encoded(photo(7).point(lambda v: v // 8))),
    "overexposed": ("x.jpg", encoded(photo(7).point(lambda v: 225 + v // 9))),
    "blurred": ("x.jpg", encoded(photo(7, (320, 240)).filter(ImageFilter.GaussianBlur(9)))),
    "tiny": ("x.jpg", encoded(photo(7, (20, 15)))),
    "odd-shape": ("x.jpg", encoded(photo(7, (400, 100)))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", FILES)
def test_a_planted_file_is_found(root, kind):
    name, data = FILES[kind]
    for beside in root.glob("*/07.jpg"):
        beside.unlink()  # the planted file is made of the same picture
    (root / "cat" / name).write_bytes(data)
    assert [f"cat/{name}"] in found(root)[kind]


def test_16_bit_rgb_is_deep(root):
    values = np.asarray(photo(7)).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = b"IHDR" + (120).to_bytes(4, "big") + (90).to_bytes(4, "big") + b"\x10\x02\0\0\0"
    chunks = [head, b"IDAT" + zlib.compress(rows), b"IEND"]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in chunks
    )
    (root / "cat" / "x.png").write_bytes(data)
    assert found(root)["deep"] == [["cat/x.png"]]


def test_copies_are_told_by_what_they_spoil(root, tmp_path):
    divided = tmp_path / "divided"
    for name in ("train", "val"):
        (divided / name).parent.mkdir(exist_ok=True)
    root.rename(divided / "train")
    for name in ("cat", "dog"):
        (divided / "val" / name).mkdir(parents=True)
        for i in range(3):
            photo(7000 + 10 * (name == "dog") + i).save(divided / "val" / name / f"v{i}.jpg")
    train, val = divided / "train", divided / "val"
    (train / "dog" / "same.jpg").write_bytes((train / "cat" / "00.jpg").read_bytes())
    small = Image.open(train / "cat" / "01.jpg").resize((96, 72), Image.Resampling.LANCZOS)
    small.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(val / "cat" / "leak.jpg", quality=70)
    Image.open(train / "dog" / "02.jpg").save(train / "dog" / "again.jpg", quality=70)
    (train / "dog" / "twice.jpg").write_bytes((train / "dog" / "03.jpg").read_bytes())
    assert found(divided) == {
        "conflicting-labels": [["train/cat/00.jpg", "train/dog/same.jpg"]],
        "leakage": [["train/cat/01.jpg", "val/cat/leak.jpg"]],
        "duplicates": [["train/dog/03.jpg", "train/dog/twice.jpg"]],
        "near-duplicates": [["train/dog/02.jpg", "train/dog/again.jpg"]],
    }


def test_classes(tmp_path):
    for name, count in {"Red": 45, "red ": 3, "one": 1, "blue": 40}.items():
        make_images(tmp_path / "train" / name, count, (count, 80, 90))
    make_images(tmp_path / "val" / "Red", 2, (1, 2, 90))
    make_images(tmp_path / "val" / "green", 2, (3, 2, 90))
    told = {finding.kind: finding for finding in check(tmp_path).findings}
    assert [i.path for i in told["similar-classes"].items] == ["Red", "red "]
    assert [i.path for i in told["missing-class"].items] == ["green"]
    assert [i.path for i in told["scarce-class"].items] == ["one"]
    assert [i.path for i in told["few-images"].items] == ["red "]
    assert [i.path for i in told["imbalance"].items] == ["Red", "one"]
    assert {i.path for i in told["not-held-out"].items} == {"blue", "one", "red "}


def test_a_typing_error_and_an_empty_folder_in_class_names(tmp_path):
    for name, count in {"daisy": 40, "dasy": 1, "Dasiy": 4, "rose": 5, "cat": 40, "bat": 1}.items():
        make_images(tmp_path / name, count, (count, 80, 90))
    for name, count in {"item12": 1, "item13": 40}.items():
        make_images(tmp_path / name, count, (count, 80, 90))
    (tmp_path / "tulip").mkdir()
    told = {finding.kind: finding for finding in check(tmp_path).findings}
    groups = told["near-equal-classes"].groups
    assert [[item.path for item in group] for group in groups] == [["Dasiy", "daisy"], ["dasy", "daisy"]]
    assert [item.path for item in told["empty-classes"].items] == ["tulip"]
    data = open_data(tmp_path)
    (line,) = quick_summary(data, quick_check(data))
    assert "one of them much rarer: 'Dasiy' and 'daisy', and 1 more" in line


def test_captions_as_class_names_take_no_memory():
    """One letter is wrong in names of 20,000 letters: all of their parts would be 400 MB."""
    text = "a caption " * 2000
    names = (text, text.replace("p", "b", 1), "daisy")
    labels = np.repeat([0, 1, 2], [20, 1, 20])
    data = DataSet("x", "", names, {"all": Samples(tuple(map(str, range(41))), labels)})
    tracemalloc.start()
    found = quick_check(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "near-equal-classes" not in {finding.kind for finding in found}
    assert peak < 4 << 20


def test_what_is_passed_over_is_told(root):
    (root / ".ipynb_checkpoints").mkdir()
    (root / "__MACOSX").mkdir()
    data = (root / "cat" / "00.jpg").read_bytes()
    for name in (
        ".ipynb_checkpoints/a.jpg",
        "__MACOSX/._b.jpg",
        "cat/.c.jpg",
        "loose.jpg",
        "cat/d.jpg_large",
    ):
        (root / name).write_bytes(data)
    (root / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    (root / "dog" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    told = found(root)
    assert told["hidden"] == [[".ipynb_checkpoints"], ["__MACOSX"], ["cat/.c.jpg"]]
    assert told["passed-over-images"] == [["loose.jpg"]]
    assert told["duplicates"] == [["cat/00.jpg", "cat/d.jpg_large"]]
    assert told["other-files"] == [["cat/Thumbs.db"]]
    assert told["loops"] == [["cat/loop"]]
    assert told["unreadable"] == [["dog/gone.jpg"]]


def test_what_many_share_is_their_nature(root):
    for path in root.glob("*/*.jpg"):
        Image.open(path).point(lambda v: v // 8).save(path)
    told = check(root)
    assert [(f.kind, f.severity) for f in told.findings] == [("style", "note")]
    assert "120 of 120: dark" in told.findings[0].items[0].detail


def test_a_folder_without_classes_is_checked_all_the_same(root):
    (root / "cat" / "x.jpg").write_bytes(b"")
    told = found(root / "cat")
    assert list(told) == ["layout", "empty"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(root):
    (root / "cat").chmod(0)
    told = found(root)
    (root / "cat").chmod(0o700)
    assert told["denied"] == [["cat"]]


def test_images_in_memory():
    report = check("digits")
    assert report.n == 1797
    assert not report.serious


def test_nothing_to_check(tmp_path):
    with pytest.raises(DataError, match="contains no image"):
        check(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        check(tmp_path / "absent")


def summary(data):
    return quick_summary(data, quick_check(data))


def test_the_quick_form_sees_equal_files_across_a_division(root):
    assert summary(open_data(root)) == []
    data = (root / "cat" / "00.jpg").read_bytes()
    (root / "dog" / "same.jpg").write_bytes(data)
    (line,) = summary(open_data(root))
    assert "two classes: 'cat/00.jpg' and 'dog/same.jpg'" in line
    (root / "dog" / "same.jpg").unlink()
    for i in range(8):
        (root / "cat" / f"copy{i}.jpg").write_bytes(data)
    divided = split(open_data(root), SplitPlan(val=0.4, test=0.2))
    (line,) = summary(divided)
    assert "in two splits" in line
    kinds = {finding.kind: finding for finding in quick_check(divided)}
    assert {"leakage", "duplicates"} <= set(kinds)
    assert len(kinds["leakage"].groups[0]) == 9


def test_the_real_trouble_of_real_data(shared):
    told = {f.kind: f for f in check(shared / "data" / "flowers").findings}
    (pair,) = told["conflicting-labels"].groups
    assert [(i.label, Path(i.path).name) for i in pair] == [
        ("rose", "17291930305_79deae6a90_n.jpg"),
        ("tulip", "17291930305_79deae6a90_n.jpg"),
    ]
    told = {f.kind: f for f in check(shared / "data" / "hymenoptera_data").findings}
    (item,) = told["odd-one-out"].items
    assert item.path.endswith("imageNotFound.gif")
    assert item.detail == "GIF among 397 JPEG; 94 % of the pixels have one shade"


def test_the_worst_images_come_first(root):
    for i, radius in enumerate((3, 9, 5)):
        name = root / "cat" / f"blurred{i}.png"
        photo(900 + i, (320, 240)).filter(ImageFilter.GaussianBlur(radius)).save(name)
    for i, level in enumerate((7, 9, 11)):
        photo(950 + i).point(lambda v, level=level: v // level).save(root / "dog" / f"dark{i}.png")
    for i, width in enumerate((400, 800, 600)):
        photo(970 + i, (width, 100)).save(root / "dog" / f"wide{i}.png")
    for name in ("cat/01.jpg", "cat/02.jpg", "dog/03.jpg", "dog/04.jpg", "dog/05.jpg"):
        for copy in range(1 if name.startswith("cat") else 2):
            shutil.copy(root / name, root / name.replace(".jpg", f"-{copy}.jpg"))
    told = found(root)
    assert told["blurred"] == [["cat/blurred1.png"], ["cat/blurred2.png"], ["cat/blurred0.png"]]
    assert told["dark"] == [["dog/dark2.png"], ["dog/dark1.png"], ["dog/dark0.png"]]
    assert told["odd-shape"] == [["dog/wide1.png"], ["dog/wide2.png"], ["dog/wide0.png"]]
    assert [len(group) for group in told["duplicates"]] == [3, 3, 3, 2, 2]


def test_problems_as_csv(root, tmp_path):
    odd = root / "cat" / "a,\r.jpg"
    odd.write_bytes(b"")
    (root / "dog" / "broken.png").write_bytes(b"no image")
    shutil.copy(root / "dog" / "01.jpg", root / "dog" / "copy.jpg")
    make_images(root / "bird", 2, (3, 200, 90))
    write_atomic(tmp_path / "problems.csv", check(root).to_csv())
    header = ["path", "kind", "severity", "class", "split", "detail", "group"]
    rows = [fields for _, fields in read_table(tmp_path / "problems.csv", header)]
    by_kind = {}
    for row in rows:
        by_kind.setdefault(row[1], []).append(dict(zip(header, row, strict=True)))
    assert by_kind["empty"][0] == {
        "path": str(odd), "kind": "empty", "severity": "serious", "class": "cat", "split": "",
        "detail": "0 bytes", "group": "1",
    }  # fmt: skip
    assert [row["path"] for row in by_kind["unreadable"]] == [str(root / "dog" / "broken.png")]
    copies = {(row["path"], row["group"]) for row in by_kind["duplicates"]}
    assert copies == {(str(root / "dog" / name), "1") for name in ("01.jpg", "copy.jpg")}
    assert [(row["path"], row["class"]) for row in by_kind["scarce-class"]] == [("", "bird")]


def test_columns_and_labels_of_a_table(root):
    rows = "".join(f"{path},{i / 7}\n" for i, path in enumerate(sorted(root.glob("*/*.jpg"))))
    (root.parent / "t.csv").write_text(f"photo,price\n{rows}")
    report = check(root.parent / "t.csv", path_column="photo", label_column="price")
    assert report.n == 120
    assert report.findings[0].kind == "continuous-labels"


def test_images_with_several_classes(tmp_path):
    """Equal sets in any order are one label; copies whose sets differ conflict; pairs may never occur."""
    (tmp_path / "photos").mkdir()
    labels = ["cat;dog", "dog;cat", "cat", "", *["cat", "dog"] * 20, "indoor"]
    for i in range(len(labels)):
        photo(i).save(tmp_path / "photos" / f"{i:02}.jpg", quality=92)
    for new, old in ((1, 0), (2, 3), (5, 4)):
        shutil.copy(tmp_path / "photos" / f"{old:02}.jpg", tmp_path / "photos" / f"{new:02}.jpg")
    rows = [f"photos/{i:02}.jpg,{label}" for i, label in enumerate(labels)]
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    report = check(table)
    kinds = {f.kind: [[Path(i.path).stem for i in group] for group in f.groups] for f in report.findings}
    assert kinds == {
        "conflicting-label-sets": [["02", "03"], ["04", "05"]],
        "scarce-class": [["indoor"]],
        "duplicates": [["00", "01"]],
        "imbalance": [["cat", "indoor"]],
        "no-class": [["03"]],
    }
    assert report.classes == {"cat": 23, "dog": 22, "indoor": 1}
    assert report.to_json()["labels_per_image"] == {"mean": 46 / 45, "most": 2, "none": 1}
    assert report.labels_per_image.summary.endswith("at most 2; 1 image has none")


def test_links_in_class_folders_are_joined_on_request(root):
    (root / "dog" / "both.jpg").symlink_to(root / "cat" / "00.jpg")
    single = check(root)
    assert [finding.kind for finding in single.findings] == ["conflicting-labels"]
    assert single.to_json()["labels_per_image"] is None
    report = check(root, multi_label=True)
    assert report.findings == ()
    assert report.labels_per_image.most == 2
    assert report.classes == {"cat": 60, "dog": 61}


def test_sets_of_numbers_are_no_measured_values(tmp_path):
    rows = [f"{i}.jpg,{100 + 7 * (i % 20)};{101 + 11 * (i % 25)}" for i in range(60)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    assert "continuous-labels" not in {f.kind for f in quick_check(open_data(tmp_path / "t.csv"))}
