"""Small hostile datasets and detections, each through the commands that take it: exit 3 and one line."""

import shutil
import tarfile

import pytest
from harness import refused

DATA = {
    "npz_encrypted.npz": "it is encrypted", "npz_shape_huge0.npz": "has the shape (0, 99999999999999999999)",
    "tar_bit_in_header.tar": "the header at byte 30,720 is damaged", "idx_zero_side.tgz": "have no pixels",
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_datasets(shared, tmp_path, name, capsys):
    path = tmp_path / name
    shutil.copy(shared / "cases" / "attack" / name, path)
    if name.endswith("tgz"):
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "idx", filter="data")
        path = next((tmp_path / "idx").rglob("*images*")).parent
    refused(["check", path, "--no-page"], capsys, DATA[name])
    refused(["train", path, "--model", "lenet", "--out", tmp_path / "runs"], capsys, DATA[name])


def test_detections(shared, tmp_path, capsys):
    attack = shared / "cases" / "attack"
    for name, target in (("voc_encoding_unknown.xml", "voc/1.xml"), ("yolo_nul_name.txt", "yolo/1.txt")):
        (tmp_path / target).parent.mkdir()
        shutil.copy(attack / name, tmp_path / target)
    refused(["detection", attack / "gt_cat_list_id.json", attack / "dt.json"], capsys, "with an id")
    refused(["detection", tmp_path / "voc", tmp_path / "voc"], capsys, "unknown encoding: evil")
    refused(["detection", tmp_path / "yolo", tmp_path / "yolo"], capsys, "it contains a zero byte")
