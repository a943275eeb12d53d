"""The readers: the same boxes from every format, and mistakes told by file and line."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from striate.data.detection import TextLayout, load_detections, load_ground_truth
from striate.errors import DataError, UsageError
from striate.metrics.detection import evaluate, read_ground_truth


def sorted_boxes(side, truth):
    names = np.array(truth.category_names)
    images = [str(i) for i in truth.image_ids[side.image].tolist()]
    rows = [(i, n, *np.round(b, 1)) for i, n, b in zip(images, names[side.category], side.box, strict=True)]
    return sorted(rows)


def test_one_data_set_in_three_formats(shared):
    folder = shared / "data/detection/padilla_formats"
    images = shared / "data/detection/voc_100/data/database/images"
    voc = load_ground_truth(folder / "pascalvoc_format")
    yolo = TextLayout("cxcywh", relative=True, images=images, names=folder / "yolo_format/obj.names")
    text = load_ground_truth(folder / "yolo_format/obj_train_data", yolo)
    coco = load_ground_truth(folder / "coco_format_v2/instances_v2.json")
    assert len(voc) == len(text) == len(coco) == 273
    assert voc.image_ids.tolist() == text.image_ids.tolist()
    ours, theirs = sorted_boxes(voc, voc), sorted_boxes(text, text)
    assert [r[:2] for r in ours] == [r[:2] for r in theirs]
    widest = np.abs(np.array([r[2:] for r in ours]) - np.array([r[2:] for r in theirs])).max()
    assert widest <= 1.1  # some of the files were converted with the inclusive pixel and some without
    np.testing.assert_allclose(np.sort(coco.box[:, 2]), np.sort(voc.box[:, 2]), atol=1.1)


def test_annotations_state_the_sizes_that_fractions_need(shared):
    folder = shared / "data/detection/padilla_formats"
    images = shared / "data/detection/voc_100/data/database/images"
    names = shared / "data/detection/padilla_toy/voc.names"
    truth = load_ground_truth(folder / "pascalvoc_format")
    by_image, by_annotation = (
        load_detections(
            folder / "dets/rel_xywh", truth, TextLayout("cxcywh", relative=True, names=names, **where)
        )
        for where in ({"images": images}, {"annotations": folder / "pascalvoc_format"})
    )
    np.testing.assert_array_equal(by_image.box, by_annotation.box)


def test_an_annotation_without_a_size_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation><object/></annotation>")
    layout = TextLayout("cxcywh", relative=True, annotations=tmp_path)
    with pytest.raises(DataError, match=r"a\.xml, width"):
        layout.size("a", "a.txt, line 1")
    with pytest.raises(DataError, match=r"a\.txt, line 2.*no b\.xml"):
        layout.size("b", "a.txt, line 2")


def test_detections_in_three_layouts_score_the_same(shared):
    folder = shared / "data/detection/padilla_formats"
    images = shared / "data/detection/voc_100/data/database/images"
    names = shared / "data/detection/padilla_toy/voc.names"
    truth = load_ground_truth(folder / "pascalvoc_format")
    layouts = {
        "abs_xywh": TextLayout("xywh", names=names),
        "abs_xyx2y2": TextLayout("xyxy", names=names),
        "rel_xywh": TextLayout("cxcywh", relative=True, images=images, names=names),
    }
    scores = {
        name: evaluate(truth, load_detections(folder / "dets" / name, truth, layout), "voc12").map
        for name, layout in layouts.items()
    }
    assert scores["abs_xywh"] == scores["abs_xyx2y2"] == pytest.approx(scores["rel_xywh"], abs=1e-3)
    assert 0.3 < scores["abs_xywh"] < 0.9


def test_csv(tmp_path):
    gt, dt = tmp_path / "gt.csv", tmp_path / "dt.csv"
    gt.write_text("file_name,xmin,ymin,xmax,ymax,class\na.jpg,1,2,11,22,cat\nb.jpg,,,,,\n")
    dt.write_text("image,label,conf,x,y,w,h\nsome/a.jpg,cat,0.5,1,2,10,20\n")
    truth = load_ground_truth(gt)
    assert truth.image_ids.tolist() == ["a", "b"]
    assert truth.box.tolist() == [[1, 2, 10, 20]]
    assert evaluate(truth, load_detections(dt, truth)).stats[0] == pytest.approx(1)


def test_score_after_the_box(tmp_path):
    for name, line in (("gt", "cat 1 2 3 4\n"), ("dt", "cat 1 2 3 4 0.25\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(line)
    truth = load_ground_truth(tmp_path / "gt")
    found = load_detections(tmp_path / "dt", truth, TextLayout(score_last=True))
    assert found.score.tolist() == [0.25]
    assert found.box.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat 1 2 3", r"a\.txt, line 2: it has 4 fields, not 5"),
        ("cat 1 2 3 x", r"a\.txt, line 2: 'x' is not a number"),
        ("cat 1 2 -3 4", r"would be inverted \(first: .*a\.txt, line 2\)"),
    ],
)
def test_malformed_lines(line, message, tmp_path):
    (tmp_path / "a.txt").write_text(f"cat 1 2 3 4\n{line}\n")
    with pytest.raises(DataError, match=message):
        load_ground_truth(tmp_path)


def test_malformed_xml(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation>\n<object></annotation>")
    with pytest.raises(DataError, match=r"a\.xml, line 2: mismatched tag"):
        load_ground_truth(tmp_path)
    (tmp_path / "a.xml").write_text("<!DOCTYPE x [<!ENTITY a 'b'>]><annotation/>")
    with pytest.raises(DataError, match="document type"):
        load_ground_truth(tmp_path)


def test_malformed_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,class,x,y,w,h\na,cat,1,2,3,four\n")
    with pytest.raises(DataError, match=r"line 2: 'four' is not a number"):
        load_ground_truth(path)
    path.write_text("image,class,x,y\n")
    with pytest.raises(DataError, match="no columns for the box"):
        load_ground_truth(path)


def test_layouts_are_checked(tmp_path):
    with pytest.raises(UsageError, match="coordinates 'yxyx'"):
        TextLayout("yxyx")
    with pytest.raises(UsageError, match="Give the folder of images"):
        TextLayout(relative=True)
    with pytest.raises(DataError, match="does not exist"):
        load_ground_truth(tmp_path / "none")


def written(folder, lines_by_image):
    folder.mkdir()
    for image, lines in lines_by_image.items():
        (folder / f"{image}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def random_boxes(seed, n, side=400):
    """Corners of boxes in images of `side` pixels, in whole pixels."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(0, side, (n, 2, 2)), axis=1)
    corners[:, 1] += 1
    return corners.reshape(n, 4).astype(float)


def as_written(corners, coordinates):
    left, top, right, bottom = corners.T
    w, h = right - left, bottom - top
    columns = {
        "xyxy": (left, top, right, bottom),
        "xywh": (left, top, w, h),
        "cxcywh": (left + w / 2, top + h / 2, w, h),
    }
    return np.stack(columns[coordinates], axis=1)


@pytest.mark.parametrize(
    ("coordinates", "sizes"),
    [("xyxy", True), ("xywh", True), ("cxcywh", True), ("xyxy", False), ("xywh", False)],
)
def test_the_boxes_tell_their_coordinates(coordinates, sizes, tmp_path):
    """With the image sizes from COCO's JSON any layout; without them only corners and corner with size."""
    corners = random_boxes(3, 60)
    lines = [f"cat 0.5 {' '.join(map(str, row))}" for row in as_written(corners, coordinates).tolist()]
    images = [{"id": "a"} | ({"width": 401, "height": 401} if sizes else {})]
    gt = {"images": images, "annotations": [], "categories": [{"id": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    found = load_detections(written(tmp_path / "dt", {"a": lines}), load_ground_truth(tmp_path / "gt.json"))
    np.testing.assert_allclose(found.box, as_written(corners, "xywh"))
    assert f"as {coordinates} (" in found.notes[0]


def test_real_corners_are_no_longer_read_as_sizes(shared):
    """Most of these boxes would leave their image if they were read as corner and size."""
    folder = shared / "data/detection/voc_100/data/database"
    truth = load_ground_truth(folder / "gts/pascalvoc_format")
    names = shared / "data/detection/padilla_toy/voc.names"
    inferred, stated = (
        load_detections(folder / "dets/abs_xyx2y2", truth, TextLayout(coordinates, names=names))
        for coordinates in ("auto", "xyxy")
    )
    np.testing.assert_array_equal(inferred.box, stated.box)
    assert "as xyxy (left, top, right, bottom): not xywh: 322 of 452 boxes would leave" in inferred.notes[0]
    assert stated.notes == ()


@pytest.mark.parametrize("coordinates", ["xywh", "xyxy", "cxcywh"])
def test_relative_boxes_tell_their_coordinates(coordinates, tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "a.png")
    corners = random_boxes(4, 40, side=399)
    relative = as_written(corners, coordinates) / 400
    lines = [f"cat {' '.join(map(repr, row))}" for row in relative.tolist()]
    layout = TextLayout(relative=True, images=tmp_path)
    truth = load_ground_truth(written(tmp_path / "gt", {"a": lines}), layout)
    np.testing.assert_allclose(truth.box, as_written(corners, "xywh") * [1, 0.5, 1, 0.5])


def test_boxes_that_contradict_every_layout_are_refused(tmp_path):
    """Half of the boxes are corners, the other half corner and size."""
    corners = random_boxes(5, 40)
    rows = [*as_written(corners[:20], "xyxy").tolist(), *as_written(corners[20:], "xywh").tolist()]
    Image.new("RGB", (401, 401)).save(tmp_path / "a.png")
    gt = written(tmp_path / "gt", {"a": [f"cat {' '.join(map(str, row))}" for row in rows]})
    with pytest.raises(
        DataError, match=r"not xywh: .* leave.*a\.txt, line \d+.*not xyxy: .* inverted"
    ) as error:
        load_ground_truth(gt, TextLayout(images=tmp_path))
    assert "--coordinates" in str(error.value)
    assert len(load_ground_truth(gt, TextLayout("xywh", images=tmp_path))) == 40


def test_few_boxes_that_fit_everything_stay_corner_and_size(tmp_path):
    truth = load_ground_truth(written(tmp_path / "gt", {"a": ["cat 100 100 150 160"]}))
    assert truth.box.tolist() == [[100, 100, 150, 160]]
    assert "could also be xyxy or cxcywh; --coordinates decides" in truth.notes[0]


def test_centred_objects_in_images_of_known_size_stay_corner_and_size(tmp_path):
    """Large objects in the middle: width > left for all of them, so that they look like corners."""
    rng = np.random.default_rng(0)
    sides = rng.integers(120, 200, 50)
    lines = {f"{i}": [f"cat {(224 - s) // 2} {(224 - s) // 2} {s} {s}"] for i, s in enumerate(sides)}
    for image in lines:
        Image.new("L", (224, 224)).save(tmp_path / f"{image}.png")
    truth = load_ground_truth(written(tmp_path / "gt", lines), TextLayout(images=tmp_path))
    assert sorted(truth.box[:, 2].tolist()) == sorted(sides.tolist())


def test_difficult_as_the_sixth_field(tmp_path):
    gt = written(tmp_path / "gt", {"a": ["cat 1 2 30 40 1", "cat 60 2 30 40 0", "cat 100 2 30 40"]})
    truth = load_ground_truth(gt)
    assert truth.difficult.tolist() == [True, False, False]
    found = written(tmp_path / "dt", {"a": ["cat 0.9 1 2 30 40", "cat 0.8 60 2 30 40"]})
    result = evaluate(truth, load_detections(found, truth), "voc12")
    assert (result.map, result.classes[0].positives) == (0.5, 2)
    (gt / "a.txt").write_text("cat 0.9 1 2 30 40\n")
    with pytest.raises(DataError, match=r"line 1: the sixth field is '40', not 0 or 1"):
        load_ground_truth(gt)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"1.txt": b"cat 1 2 3 4\ncat\0 1 2 3 4"}, r"1\.txt, line 2: it contains a zero byte"),
        ({"1.xml": b"<?xml version='1.0' encoding='evil'?><a/>"}, "unknown encoding: evil"),
        ({"1.xml": "<!DOCTYPE a><a/>".encode("utf-16")}, "it has a document type"),
        ({"1.xml": b"<a>" * 2_000_000}, "the limit for such a file is"),
        ({"1.xml": b"<a>\0</a>"}, r"1\.xml, line 1"),
        ({"gt.csv": b"image,class,x,y,w,h\n1,cat\0,1,2,3,4"}, r"gt\.csv:2: it contains a zero byte"),
        ({"gt.json": b'{"images":[{"id":1}],"categories":[{"id":[1]}],"annotations":[]}'}, "with an id"),
        ({"gt.json": b'{"images":[{"id":"a\\u0000"}],"categories":[],"annotations":[]}'}, "a zero byte"),
        ({"gt.json": b"[" * 100_000}, "recursion|array|nest|object|line 1"),
        ({"gt.json": b'{"annotations":' + b"9" * 5000 + b"}"}, "."),
    ],
)
def test_hostile_files_are_refused(files, why, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path if name.endswith(("txt", "xml")) else tmp_path / name
    with pytest.raises(DataError, match=why):
        load_ground_truth(path)


def test_pipes_are_refused(tmp_path):
    for name in ("gt.json", "1.txt", "1.xml"):
        folder = tmp_path / name[-3:]
        folder.mkdir()
        os.mkfifo(folder / name)
        with pytest.raises(DataError, match=r"named pipe|neither a \.json"):
            load_ground_truth(folder / name if name == "gt.json" else folder)
    with pytest.raises(DataError, match="named pipe"):
        read_ground_truth(tmp_path / "son" / "gt.json")


def test_one_long_name_does_not_multiply_memory(tmp_path):
    """NumPy's text arrays would take 4 x 100,000 x 20,000 bytes."""
    rows = "".join(f"{i},c,1,2,3,4\n" for i in range(20_000)) + f"0,{'c' * 100_000},1,2,3,4\n"
    (tmp_path / "gt.csv").write_text(f"image,class,x,y,w,h\n{rows}")
    tracemalloc.start()
    truth = load_ground_truth(tmp_path / "gt.csv")
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()
    assert [len(name) for name in truth.category_names] == [1, 100_000]
    assert (truth.category == np.r_[np.zeros(20_000), 1]).all()


@pytest.mark.parametrize("size", ["nan", "inf", "1e308", "-1", "0"])
def test_sizes_that_no_image_has(size, tmp_path):
    text = f"<a><size><width>{size}</width><height>5</height></size></a>"
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match="it states a size of"):
        TextLayout("cxcywh", relative=True, annotations=tmp_path).size("a", "a.txt, line 1")
