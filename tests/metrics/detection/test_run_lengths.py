"""Run lengths of masks: those of real masks are accepted, others never reach pycocotools' C code."""

import json

import numpy as np
import pytest
from coco_oracle import awkward, write
from pycocotools import mask

from striate.errors import DataError
from striate.metrics.detection import COCO, detections, evaluate, ground_truth, read_ground_truth_with
from striate.metrics.detection.run_lengths import check_run_lengths, to_rle

SIZE = [30, 40]


def compressed(runs):
    """The text for run lengths, group by group, as maskApi.c describes it."""
    text = ""
    for i, run in enumerate(runs):
        rest, more = run - runs[i - 2] if i > 2 else run, True
        while more:
            group, rest = rest & 31, rest >> 5
            more = rest != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
    return text


def runs_of(pixels):
    """Lengths of runs of zeros and ones, in turn, column by column."""
    flat = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return np.diff([0, *changes, flat.size]).tolist()


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools
def test_real_masks_are_accepted_in_all_forms():
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.3, 0.99, 1):
        for block in (1, 4):
            pixels = np.kron(rng.random((30, 41)) < share, np.ones((block, block))).astype(np.uint8)
            encoded, runs = mask.encode(np.asfortranarray(pixels)), runs_of(pixels)
            assert compressed(runs) == encoded["counts"].decode()
            for counts in (encoded["counts"], compressed(runs), runs):
                rle = to_rle({"size": list(pixels.shape), "counts": counts}, *pixels.shape, "x")
                np.testing.assert_array_equal(mask.decode(rle), pixels)
    check_run_lengths({"size": [0, 0], "counts": b""}, "x")


BAD = {
    "too long": [100, 200, 901], "too short": [100, 200, 899], "negative": [1300, -100],
    "negative later": [500, 400, 400, -100], "none": [], "enormous": [2**31 - 1, 2**31 - 1],
    "wraps to the size": [2**31, 2**31, 1200],
}  # fmt: skip


def forms(runs):
    return [runs, compressed(runs), compressed(runs).encode()]


@pytest.mark.parametrize("runs", BAD.values(), ids=BAD)
def test_runs_that_do_not_fill_the_mask_are_refused(runs):
    for counts in forms(runs):
        with pytest.raises(DataError, match=r"the mask of x: .*(add up to|a run of -1)"):
            to_rle({"size": SIZE, "counts": counts}, *SIZE, "x")


@pytest.mark.parametrize(
    "counts",
    [
        "o",
        "0/",
        "\x7f",
        "é",
        "\0",
        "o" * 40 + "0",
        compressed([1200]) + "P",
        7,
        None,
        [600.0, 600],
        [True, 1199],
    ],
)
def test_texts_that_are_no_run_lengths_are_refused(counts):
    with pytest.raises(DataError, match=r"the mask of x: its (text|run lengths)"):
        to_rle({"size": SIZE, "counts": counts}, *SIZE, "x")


@pytest.mark.parametrize("size", [None, [30], [-30, -40], [1 << 16, 1], [30.0, 40], "ab", [True, 1]])
def test_sizes_that_no_image_has_are_refused(size):
    with pytest.raises(DataError, match="the mask of x: its size"):
        to_rle({"size": size, "counts": compressed([1200])}, *SIZE, "x")


def test_a_polygon_that_would_fill_the_memory_is_refused():
    """Each of the edges between far corners takes a megabyte; corners of a large image are fine."""
    far = [0, 0, 130_000, 130_000]
    with pytest.raises(DataError, match="the mask of x: the outline of its polygon is longer than"):
        to_rle([far * 1000], 30, 40, "x")
    assert mask.area(to_rle([[0, 0, 30_000, 0, 30_000, 20_000, 0, 20_000]], 20_000, 30_000, "x")) == 6e8


@pytest.mark.parametrize("counts", forms([100, 200, 901]), ids=["list", "text", "bytes"])
@pytest.mark.parametrize("where", ["truth", "results", "results without boxes"])
def test_the_file_and_the_annotation_are_named(tmp_path, where, counts):
    gt, rows = awkward(2)
    for image in gt["images"]:
        image.update(height=30, width=40)
    for row in (*gt["annotations"], *rows):
        row.update(bbox=[1, 2, 3, 4], segmentation={"size": SIZE, "counts": compressed([100, 200, 900])})
        if where == "results without boxes" and "score" in row:
            del row["bbox"]
    gt["annotations"] = [
        row for row in gt["annotations"] if row["image_id"] in {i["id"] for i in gt["images"]}
    ]
    row = (gt["annotations"] if where == "truth" else rows)[1]
    text = counts.decode() if isinstance(counts, bytes) else counts
    row["segmentation"] = {"size": SIZE, "counts": text}
    paths = write(tmp_path, gt, rows)
    file, name = (paths[0], row["id"]) if where == "truth" else (paths[1], 2)
    with pytest.raises(DataError) as found:
        evaluate(*paths, iou_type="segm")
    assert str(file) in str(found.value)
    if where == "results without boxes" and isinstance(text, list):
        return  # pycocotools reads no lists there either
    assert f"{name}: its run lengths add up to 1,201 and not to its 30 x 40 pixels" in str(found.value)


def test_the_replacement_of_pycocotools_and_the_functions_check_too(tmp_path):
    bad = {"size": SIZE, "counts": compressed([100, 200, 901])}
    row = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": bad}
    images, categories = [{"id": 1, "height": 30, "width": 40}], [{"id": 1, "name": "a"}]
    dataset = {"images": images, "categories": categories, "annotations": [row]}
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(dataset))
    data = COCO(path)
    with pytest.raises(DataError, match="the mask of annotation 5: its run lengths add up to 1,201"):
        data.annToMask(data.anns[5])
    with pytest.raises(DataError, match="the mask of annotation 5"):
        read_ground_truth_with(path, "segm")
    good = mask.encode(np.ones(SIZE, np.uint8, order="F"))
    truth = ground_truth([1, 1], [1, 1], masks=[good, good])
    with pytest.raises(DataError, match="the mask of row 1: its run lengths add up to 1,201"):
        detections([1, 1], [1, 1], None, score=[0.5, 0.5], masks=[good, bad], truth=truth)
