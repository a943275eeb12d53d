"""Safetensors files: what the safetensors library reads, with checksums; damage is refused before reading."""

import json
import zlib

import numpy as np
import pytest
import safetensors.torch
import torch

from striate import tensor_file
from striate.errors import BundleError
from striate.files import write_atomic

STATE = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3), "a": torch.tensor(7), "none": torch.empty(0, 4),
    "half": torch.ones(3, dtype=torch.bfloat16), "flag": torch.tensor([True, False]),
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    write_atomic(tmp_path / "x.safetensors", tensor_file.encode(STATE, {"note": "Ünïcode"}))
    return tmp_path / "x.safetensors"


def rewrite(path, change):
    """Change the header of a file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = change(content[8 : 8 + length])
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_the_library_reads_the_same(path):
    library = safetensors.torch.load_file(path)
    header = tensor_file.read_header(path, "")
    ours = tensor_file.read_tensors(path, header)
    assert ours.keys() == library.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(ours[name], tensor)
        assert torch.equal(library[name], tensor)
        assert ours[name].dtype == tensor.dtype == tensor_file.torch_type(header.tensors[name])
    assert header.metadata["note"] == "Ünïcode"
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["note"] == "Ünïcode"


def test_files_of_the_library_are_read(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "y.safetensors")
    header = tensor_file.read_header(tmp_path / "y.safetensors", "")
    assert header.checksums is None
    found = tensor_file.read_tensors(tmp_path / "y.safetensors", header)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_the_checksum_is_zlibs_crc32_of_name_type_shape_and_values(path):
    values = np.arange(6, dtype="<f4").tobytes()
    expected = zlib.crc32(b"b F32 [2, 3]\n" + values)
    assert tensor_file.read_header(path, "").checksums["b"] == expected
    assert json.loads(tensor_file.read_header(path, "").metadata["crc32"])["b"] == f"{expected:08x}"


def test_a_changed_value_is_named(path):
    header = tensor_file.read_header(path, "")
    content = bytearray(path.read_bytes())
    content[header.start + header.tensors["b"].first] ^= 1
    path.write_bytes(content)
    for function in (tensor_file.read_tensors, tensor_file.examine):
        with pytest.raises(BundleError, match="the checksum of b does not match its values"):
            function(path, header)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"note": "', b'"note": "?', "checksum of its description"),
        (b'"crc32": "{', b'"crc32": "[', "checksums are damaged"),
        (b'"dtype": "F32"', b'"dtype": "I32"', "the checksum of b does not match"),
        (b'"shape": [2, 3]', b'"shape": [3, 2]', "the checksum of b does not match"),
        (b'"shape": [2, 3]', b'"shape": [2, 4]', "has 24 bytes for a F32 of [2, 4]"),
        (b'"shape": [2, 3]', b'"shape": [-2, -3]', "no whole number"),
        (b'"shape": [2, 3]', b'"shape": [2.0, 3]', "no whole number"),
        (b'"shape": [2, 3]', b'"shape": "2"', "needs a list of sizes"),
        (b'"dtype": "F32"', b'"dtype": "F33"', "unknown dtype"),
        (b'"dtype": "F32", ', b"", "needs dtype, shape and data_offsets"),
        (b'"b": {', b'"a": {', "the key 'a' is there twice"),
        (b'{"__metadata__"', b'{"x": 1, "__metadata__"', "'x' needs dtype"),
        (b'"dtype": "F32"', b'"dtype": ' + b"[" * 200_000, "nested too deeply"),
        (b'"dtype": "F32"', b'"dtype": ' + b"9" * 5000, "its header is damaged"),
        (b'"dtype": "F32"', b'"dtype": "\xff"', "its header is damaged"),
    ],
)
def test_a_damaged_header_is_refused(path, old, new, why):
    rewrite(path, lambda text: text.replace(old, new, 1))
    with pytest.raises(BundleError) as caught:
        tensor_file.read_tensors(path, tensor_file.read_header(path, ""))
    assert why in str(caught.value)


def test_tensors_must_follow_each_other(path):
    """An overlap would let a small file stand for a large one."""
    size = path.stat().st_size

    def overlap(text):
        header = json.loads(text)
        header["b"]["data_offsets"] = header["a"]["data_offsets"]
        header["b"] |= {"shape": [2]}
        return json.dumps(header).encode()

    rewrite(path, overlap)
    with pytest.raises(BundleError, match="do not follow those of the tensor before it"):
        tensor_file.read_header(path, "")
    assert path.stat().st_size < size + 100


def test_a_length_beyond_the_file_is_no_header(path):
    content = path.read_bytes()
    for length in (2**63, 2**64 - 1, len(content)):
        path.write_bytes(length.to_bytes(8, "little") + content[8:])
        with pytest.raises(BundleError, match="it has no safetensors header"):
            tensor_file.read_header(path, "")


def test_a_file_that_becomes_shorter(path):
    header = tensor_file.read_header(path, "")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BundleError, match="it became shorter while it was read"):
        tensor_file.read_tensors(path, header)


def test_other_metadata_keep_the_checksums(path):
    header = tensor_file.read_header(path, "")
    before = tensor_file.examine(path, header)
    write_atomic(path, tensor_file.with_metadata(path, header, {"note": "new"}))
    changed = tensor_file.read_header(path, "")
    assert (changed.metadata["note"], changed.checksums) == ("new", header.checksums)
    assert tensor_file.examine(path, changed) == before
    assert torch.equal(tensor_file.read_tensors(path, changed)["b"], STATE["b"])
