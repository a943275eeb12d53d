"""Arrays of .npz files: those that NumPy reads, and headers that lie."""

import io
import zipfile

import numpy as np
import pytest

from striate import memory
from striate.data import open_data
from striate.data.images.npz import read_arrays
from striate.errors import DataError, ResourceError


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_of_numpy(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (5, 4, 3), np.uint8), "labels": np.array(["a", "blüte", "", "x", "y"]),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4, 5))), "none": np.zeros((0, 7), np.int16),
        "one": np.array(3.5), "big": rng.integers(0, 9, (2, 3)).astype(">i4"),
    }  # fmt: skip
    save(tmp_path / "x.npz", **arrays)
    found = read_arrays(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as expected:
        assert list(found) == expected.files
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name])
            assert array.dtype == expected[name].dtype
            assert array.flags.writeable


def npy(shape, descr="'|u1'", body=b"", fortran=False):
    head = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head + body


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (npy((0, 10**20)), "has the shape"), (npy((-1, 5)), "has the shape"),
        (npy((2, 2), body=b"123"), "3 bytes"),
        (npy((1 << 30, 1 << 30)), "states 1,152,921,504,606,846,976"), (npy((1,), "'|O'"), "Python objects"),
        (npy((1,), "'<f99'"), "descr"), (npy("x"), "header"), (npy("(" * 999), "."),
        (b"\x93NUMPY\3\0", "version"),
        (b"\x93NUMPY\1\0\xff\xff", "EOF"), (b"", "EOF"), (b"what is this", "magic"),
        (npy((1,), "[('a', '<i4'), ('b', '|O')]"), "Python objects"), (npy((4,), "'<U0'"), "labels|cannot"),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused(tmp_path, member, why):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", member)
    with pytest.raises(DataError, match=why):
        open_data(path)


def test_sizes_that_the_file_cannot_contain(tmp_path):
    """A member of 336 GB in the list of members, a bomb, and another compression than NumPy's."""
    body, path = npy((1000,), body=bytes(1000)), tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", body)
    raw, size = path.read_bytes(), len(body).to_bytes(4, "little")
    path.write_bytes(raw.replace(size, (4_000_000_000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="cannot contain 4,000,000,000 bytes from"):
        read_arrays(path)
    path.write_bytes(raw.replace(size, (len(body) + 1).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"has 1,001 bytes, but its header states 1,000"):
        read_arrays(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("images.npy", body)
    with pytest.raises(DataError, match="compressed by method 12, not by DEFLATE"):
        read_arrays(path)
    np.savez_compressed(path, images=np.zeros((70, 1000, 1000), np.uint8))
    with pytest.raises(DataError, match=r"decompress to 70,000,128 or more"):
        read_arrays(path)


def test_what_memory_cannot_hold_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", images=np.zeros((100, 100, 100), np.uint8))
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ResourceError, match=r"needs at least 1.0 MB, and 0.0 MB are available"):
        read_arrays(tmp_path / "x.npz")


def test_a_damaged_member_and_an_encrypted_one(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.arange(256, dtype=np.uint8).reshape(4, 8, 8), labels=np.arange(4))
    raw = path.read_bytes()
    at = raw.index(bytes(range(100)))
    path.write_bytes(raw[:at] + b"x" + raw[at + 1 :])
    with pytest.raises(DataError, match="CRC"):
        read_arrays(path)
    flagged = bytearray(raw)
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        start = file.start_dir
    flagged[start + 8] |= 1
    path.write_bytes(flagged)
    with pytest.raises(DataError, match="it is encrypted"):
        read_arrays(path)


@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 4, 0), (3, 4, 0, 3)])
def test_images_without_pixels_are_refused(tmp_path, shape):
    np.savez(tmp_path / "x.npz", images=np.zeros(shape, np.uint8), labels=np.arange(3))
    with pytest.raises(DataError, match="they have no pixels"):
        open_data(tmp_path / "x.npz")
