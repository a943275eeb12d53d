"""Checkpoints as others write them, made here: both formats, and storages of a device that is not here."""

import zipfile

import torch

FORMATS = {"zip": True, "legacy": False}


def tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return {
        "conv1.weight": torch.randn(4, 3, 5, 5, generator=generator).to(dtype),
        "bn1.running_var": torch.rand(4, generator=generator).to(dtype),
        "bn1.num_batches_tracked": torch.tensor(7),
        "fc.bias": torch.randn(2, generator=generator).to(dtype),
    }


def saved(path, content, kind="zip"):
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[kind])
    return path


def same(state, expected):
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert state[name].device.type == "cpu"
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name
    return True


def tagged(path, kind, device="cuda:1"):
    """A file whose storages say that they were on `device`, as one saved there does."""
    before = b"X\x03\x00\x00\x00cpu"
    after = b"X" + len(device).to_bytes(4, "little") + device.encode()
    saved(path, {"state_dict": tensors()}, kind)
    if kind == "legacy":
        content = path.read_bytes()
        assert content.count(before) >= 1
        path.write_bytes(content.replace(before, after))
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if name.endswith("data.pkl"):
                assert content.count(before) >= 1
                content = content.replace(before, after)
            archive.writestr(name, content)
    return path
