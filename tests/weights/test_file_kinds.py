"""Files of other programs are named, with a next step."""

import io
import zipfile

import numpy as np
import pytest
import torch

from striate.errors import BundleError
from striate.weights.checkpoints import read


def zip_of(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)
    return content.getvalue()


def npz():
    content = io.BytesIO()
    np.savez(content, a=np.ones(2, np.float32))
    return content.getvalue()


TAR = b"x".ljust(257, b"\0") + b"ustar\0".ljust(255, b"\0")
FILES = [  # name, content; what the message says
    ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "a Keras model or another HDF5 file"),
    ("m.keras", zip_of(config__json="{}", model__weights__h5="x"), "a Keras model. Give weights of torch"),
    ("m.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
    ("m.bin", b"\x08\x07\x12\x07pytorch", "an ONNX model"),
    ("m.npz", npz(), "an .npz file of NumPy"),
    ("m.npy", b"\x93NUMPY\x01", "one NumPy array"),
    ("m.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
    ("saved_model.pb", b"\x08\x01\x12\x02ab", "a TensorFlow graph"),
    ("model.ckpt-7.index", b"\0\0\1", "a part of a TensorFlow checkpoint"),
    ("model.ckpt-7.data-00000-of-00001", b"\0\0\1", "a part of a TensorFlow checkpoint"),
    ("m.gguf", b"GGUF\x03", "a GGUF file of a language model"),
    ("m.msgpack", b"\x82", "a Flax checkpoint"),
    ("m.safetensors.index.json", b'{"weight_map": {}}', "an index of weights"),
    ("m.pth", b"version https://git-lfs.github.com/spec/v1", "Run `git lfs pull`"),
    ("m.pth", b"<!DOCTYPE html><html>not found</html>", "a web page"),
    ("m.pth.gz", b"\x1f\x8b\x08", "compressed with gzip. Unpack it"),
    ("m.tar", TAR, "a tar archive. Unpack it"),
]


@pytest.mark.parametrize(("name", "content", "says"), FILES, ids=[row[0] for row in FILES])
def test_the_program_that_wrote_a_file_is_named(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError) as error:
        read(tmp_path / name)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_for_arrays_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(npz())
    with pytest.raises(BundleError) as error:
        read("a.npz")
    exec(str(error.value).split("`")[1])
    assert torch.equal(read("weights.pth").state["a"], torch.ones(2))


def test_folders(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"it is a folder\. Give a file in it: .*model\.safetensors"):
        read(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(BundleError, match="it is a TensorFlow SavedModel"):
        read(tmp_path)
