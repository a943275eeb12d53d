"""Damaged datasets, archives, images, tables, texts and detections."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from harness import fuzz, mutated
from PIL import Image

from striate.cli import run
from striate.data import open_data
from striate.data.check.images import inspect_image
from striate.data.detection import TextLayout, load_detections, load_ground_truth
from striate.data.text.pairs import open_pairs
from striate.metrics.detection import detections, evaluate, read_ground_truth
from striate.transforms import image_file
from striate.transforms.decode import decode
from striate.transforms.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def png(form="PNG", mode="RGB", **options):
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, form, **options)
    return out.getvalue()


def fetch_all(data):
    """What a pass over a dataset does: read each image, and decode it."""
    preprocess = Preprocess.for_size(8)
    for samples in data.splits.values():
        for i in range(min(len(samples), 20)):
            try:
                preprocess.read(samples.fetch(i))
            except Exception as error:
                if not hasattr(error, "exit_code"):
                    raise


def dataset(tmp_path, name):
    """A reader of datasets with this file name."""
    path = tmp_path / name

    def read(content):
        path.write_bytes(content)
        fetch_all(open_data(path))

    return read


def members():
    image = png()
    return {"a/0.png": image, "a/1.png": image[::-1], "b/2.png": image, f"b{'d' * 90}/{'n' * 60}.png": image}


def tar(form, labels=False):
    out = io.BytesIO()
    named = (
        {"0.png": png(), "0.cls": b"3", "1.png": png(), "1.json": b'{"label": 7}'} if labels else members()
    )
    with tarfile.open(fileobj=out, mode="w", format=form) as file:
        for name, content in named.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("b/link.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a/0.png"
        file.addfile(link)
    return out.getvalue()


def zipped(method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members().items():
            file.writestr(name, content)
        file.writestr("b/\u82b1.png", png())
    return out.getvalue()


def with_headers_sealed(content, rng):
    """A damaged tar whose headers have the right checksums, so that their values are used."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 2, 3))):
        at = rng.randrange(len(data) // 512) * 512
        start, end = rng.choice(((124, 136), (156, 157), (0, 100), (157, 257), (482, 512), (345, 400)))
        patch = bytes(
            rng.choice((0, 255, 0x80, 0x30, 0x37, 0x4C, 0x78, 0x53, 0x67)) for _ in range(end - start)
        )
        data[at + start : at + end] = patch
        data[at + 148 : at + 156] = b"%06o\0 " % (
            sum(data[at : at + 148]) + 256 + sum(data[at + 156 : at + 512])
        )
    return bytes(data)


TARS = [tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)] + [
    tar(tarfile.PAX_FORMAT, labels=True)
]


def arrays(save):
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    save(out, images=rng.integers(0, 256, (6, 5, 4), np.uint8), labels=np.array(["a", "b"] * 3))
    return out.getvalue()


def test_npz(tmp_path):
    fuzz("npz", [arrays(np.savez), arrays(np.savez_compressed)], dataset(tmp_path, "x.npz"), count=60)


def test_npz_headers(tmp_path):
    """Headers of arrays of any shape and type, in an intact zip."""

    def repacked(content, rng):
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                new.writestr(name, mutated(old.read(name), rng) if rng.random() < 0.7 else old.read(name))
        return out.getvalue()

    fuzz("npz headers", [arrays(np.savez)], dataset(tmp_path, "x.npz"), mutate=repacked)


@pytest.mark.parametrize("mutate", [mutated, with_headers_sealed])
def test_tar(tmp_path, mutate):
    fuzz(f"tar {mutate.__name__}", TARS, dataset(tmp_path, "x.tar"), mutate=mutate, count=40)


def test_tar_gz(tmp_path):
    def packed(content, rng):
        if rng.random() < 0.5:
            return mutated(content, rng)
        return gzip.compress(with_headers_sealed(gzip.decompress(content), rng), 1, mtime=0)

    seeds = [gzip.compress(content, 1, mtime=0) for content in TARS]
    fuzz("tar.gz", seeds, dataset(tmp_path, "x.tgz"), mutate=packed, count=40)


def test_zip(tmp_path):
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    fuzz("zip", list(map(zipped, methods)), dataset(tmp_path, "x.zip"), count=40)


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, packed):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"

    def read(content):
        first, second = content.split(b"<split>", 1) if b"<split>" in content else (content, content)
        images.write_bytes(gzip.compress(first, 1) if packed else first)
        labels.write_bytes(gzip.compress(second, 1) if packed else second)
        fetch_all(open_data(tmp_path))

    pixels = b"\0\0\x08\x03" + b"\0\0\0\x03\0\0\0\x05\0\0\0\x04" + bytes(60)
    fuzz("idx", [pixels + b"<split>" + b"\0\0\x08\x01\0\0\0\x03\1\2\3"], read, count=40)


TABLES = [
    b'path,label,split\na.png,cat,train\n"b ""x"".png",dog,val\n',
    b"sep=;\r\nfile;class\r\na.png;cat\r\nb.png;dog\r\n", "path\tlabel\na.png\tça\n".encode("utf-16"),
]  # fmt: skip


def test_csv(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    fuzz("csv", TABLES, dataset(tmp_path, "x.csv"))


@pytest.mark.parametrize("name", ["x.tsv", "x.csv", "x.tsv.gz"])
def test_pairs(tmp_path, name):
    rows = "".join(f"word{i} é\tdrow{i}\n" for i in range(9)).encode()
    table = b"source,target,split\n" + rows.replace(b"\t", b",").replace(b"\n", b",train\n")
    seeds = [table] if name == "x.csv" else [rows, b"source\ttarget\n" + rows]
    path = tmp_path / name

    def read(content):
        path.write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
        open_pairs(path)

    fuzz(f"pairs {name}", seeds, read, count=50)


ROW = {
    "image_id": 1,
    "category_id": 3,
    "bbox": [1, 2, 9, 9.5],
    "score": 0.5,
    "id": 7,
    "area": 85.5,
    "iscrowd": 0,
}
TRUTH = {
    "info": {"x": None}, "images": [{"id": 1, "width": 40, "height": 30, "file_name": "a.png"}, {"id": 2}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog\u00e9"}],
    "annotations": [ROW, {**ROW, "id": 8, "category_id": 4, "segmentation": [[1, 1, 5, 1, 5, 5]]}],
}  # fmt: skip
TEXT = {**TRUTH, "images": [{"id": "a"}], "categories": [{"id": "cat"}], "annotations": []}


def test_detection_json(tmp_path):
    path, found = tmp_path / "gt.json", tmp_path / "dt.json"
    valid = tmp_path / "valid.json"
    valid.write_text(json.dumps(TRUTH))
    truth = read_ground_truth(valid)

    def read(content):
        target = found if content.lstrip().startswith(b"[") else path
        target.write_bytes(content)
        if target == path:
            evaluate(load_ground_truth(path), load_detections(valid, load_ground_truth(path)))
        else:
            evaluate(truth, load_detections(found, truth))

    seeds = [json.dumps(value).encode() for value in (TRUTH, [ROW, ROW])]
    fuzz("detection json", seeds, read, refused_seeds=[json.dumps(TEXT).encode()], count=40)


@pytest.mark.parametrize("kind", ["segm", "keypoints"])
def test_detection_objects(tmp_path, kind, capsys):
    """Masks and key points, whose files are used object by object."""
    valid, other = tmp_path / "valid.json", tmp_path / "x.json"
    shape = {"segmentation": [[1, 1, 5, 1, 5, 5]], "keypoints": [1, 2, 2] * 17, "num_keypoints": 17}
    truth = {**TRUTH, "annotations": [{**ROW, **shape}]}
    valid.write_text(json.dumps(truth))
    found = json.dumps([{**ROW, **shape}]).encode()

    def read(content):
        other.write_bytes(content)
        is_results = content.lstrip().startswith(b"[")
        (tmp_path / "dt.json").write_bytes(content if is_results else found)
        paths = [str(valid if is_results else other), str(tmp_path / "dt.json")]
        code = run(["detection", *paths, "--iou-type", kind])
        text = capsys.readouterr().err
        assert code in (0, 2, 3), text

    fuzz(f"detection {kind}", [json.dumps(truth).encode(), found], read, count=25)


def test_detection_text(tmp_path):
    valid = tmp_path / "gt" / "1.txt"
    valid.parent.mkdir()
    valid.write_text("cat 1 2 3 4\ndog 5 6 7 8\n")
    truth = load_ground_truth(valid.parent)
    Image.fromarray(PIXELS).save(tmp_path / "1.png")
    layouts = [TextLayout("cxcywh", relative=True, images=tmp_path), TextLayout("xyxy"), TextLayout("xywh")]
    folder = tmp_path / "x"
    folder.mkdir()

    def read(content):
        (folder / "1.txt").write_bytes(content)
        for layout in layouts:
            try:
                load_ground_truth(folder, layout)
                evaluate(truth, load_detections(folder, truth, layout), "voc12")
            except Exception as error:
                if not hasattr(error, "exit_code"):
                    raise

    fuzz(
        "detection text", [b"cat 0.5 0.5 0.2 0.1\n", b"cat 0.9 1 2 3 4\ndog 0.1 5 6 7 8\n0 1 1 2 2 5\n"], read
    )


def test_detection_names(tmp_path):
    def read(content):
        (tmp_path / "names").write_bytes(content)
        TextLayout(names=tmp_path / "names").label("1", "x")

    fuzz("names", ["cat\ndog\nça\n".encode()], read)


def test_detection_csv(tmp_path):
    path = tmp_path / "x.csv"

    def read(content):
        path.write_bytes(content)
        truth = load_ground_truth(path)
        evaluate(truth, load_detections(path, truth))

    seeds = [b"image,class,xmin,ymin,xmax,ymax,score\na.png,cat,1,2,8,9,0.5\nb,dog,3,4,5,6.5,1\n"]
    fuzz("detection csv", [*seeds, b'filename,label,x,y,w,h,conf\n"a",cat,1,2,3,4,1\n,,,,,,\n'], read)


def test_voc(tmp_path):
    path = tmp_path / "1.xml"
    text = (
        "<?xml version='1.0' encoding='utf-8'?><annotation><size><width>40</width><height>30</height></size>"
        "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>"
        "<xmax>9</xmax><ymax>9.5</ymax></bndbox></object></annotation>"
    )

    def read(content):
        path.write_bytes(content)
        truth = load_ground_truth(tmp_path)
        evaluate(truth, detections([], [], [], [], truth=truth), "voc12")
        TextLayout("cxcywh", relative=True, annotations=tmp_path).size("1", "x")

    seeds = [text.replace("utf-8", code).encode(code) for code in ("utf-8", "utf-16", "latin-1")]
    fuzz("voc", seeds, read)


IMAGES = {
    "JPEG": [png("JPEG"), png("JPEG", progressive=True), png("JPEG", "CMYK")],
    "PNG": [png(), png(mode="P", transparency=3), png(mode="1"), png(mode="LA")],
    "other": [
        png("GIF"), png("BMP"), png("PPM"), png("TIFF"), png("TIFF", compression="tiff_lzw"), png("ICO"),
        png("TGA", rle=True), png("JPEG2000"), png("WEBP"), png("AVIF"), png("MPO"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("large", [False, True])
def test_images(kind, large, tmp_path, monkeypatch):
    """Small files are decoded from memory, large ones from the disk."""
    if large:
        monkeypatch.setattr(image_file, "LARGE_FILE", 10)
    path = tmp_path / "x.png"

    def read(content):
        path.write_bytes(content)
        inspect_image(str(path), "x.png")
        decode(path)

    fuzz(f"images {kind}{', from disk' * large}", IMAGES[kind], read, count=25)
