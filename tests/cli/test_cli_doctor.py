"""`striate doctor`: it shows what is installed, and clears the cache and nothing else."""

import json

import numpy as np
import pytest
import torch
from published import install

from striate import cli
from striate.cli.doctor import _size
from striate.data import DecodedImages, open_data
from striate.transforms.preprocess import Preprocess


@pytest.fixture
def cached(colors, tmp_path, monkeypatch):
    """A cache folder with the images of a data set in it; returns the folder and their bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("striate.data.images.decoded._CLOCK_NS", -(10**12))
    samples = open_data(colors).splits["all"]
    source = DecodedImages(samples, Preprocess.for_size(72), root=str(colors))
    out = np.empty((len(samples), 72, 72, 3), np.uint8)
    with source.reading():
        assert source.read(np.arange(len(samples)), out).all()
    return tmp_path / "striate", out.nbytes


def run(capfd, *argv):
    code = cli.run(["doctor", *argv])
    return code, capfd.readouterr().out


def test_it_shows_versions_devices_and_the_size_of_the_cache(cached, capfd):
    folder, least = cached
    code, out = run(capfd, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["versions"]["torch"] == torch.__version__
    assert result["devices"][0] == "cpu"
    assert result["cache"]["folder"] == str(folder)
    stored = sum(path.stat().st_size for path in (folder / "decoded").rglob("*") if path.is_file())
    assert least <= result["cache"]["bytes"] <= stored
    assert str(folder) in run(capfd)[1]


def test_it_shows_the_weights_that_are_installed(tmp_path, monkeypatch, capfd):
    entry, path = install(tmp_path, monkeypatch, "efficientnet_lite2.v1")
    assert entry.name in json.loads(run(capfd, "--json")[1])["weights"]
    path.unlink()
    assert entry.name not in json.loads(run(capfd, "--json")[1])["weights"]


def test_clearing_removes_the_decoded_images_and_nothing_else(cached, capfd):
    folder, least = cached
    other = folder / "kept.txt"
    other.write_text("mine")
    code, out = run(capfd, "--clear-cache", "--json")
    assert code == 0
    assert json.loads(out)["cleared_bytes"] >= least
    assert other.read_text() == "mine"
    assert not list((folder / "decoded").rglob("*.pixels"))
    assert json.loads(run(capfd, "--json")[1])["cache"]["bytes"] == 0
    assert run(capfd, "--clear-cache")[1].startswith("0 B")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (20 * 10**9, "20.0 GB")]
)
def test_sizes(count, text):
    assert _size(count) == text
