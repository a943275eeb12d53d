"""Published weights for tests: entries of the catalog whose files are made here, of random values."""

import dataclasses
import hashlib

import torch

from striate import models
from striate.weights import catalog


def random_file(path, architecture):
    """A state dict of a network in EfficientNet-PyTorch's names; returns its SHA-256."""
    with torch.device("meta"):
        own = models.build(architecture).state_dict()
    generator = torch.Generator().manual_seed(5)
    state = {}
    for number, (name, tensor) in enumerate(own.items()):
        key = f"_layer{number}.{name.rpartition('.')[2]}" if number else "_conv_stem.weight"
        state[key] = 0.1 + torch.rand(tensor.shape, generator=generator) / 20
        if not tensor.is_floating_point():
            state[key] = torch.zeros((), dtype=torch.int64)
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(folder, monkeypatch, name):
    """Install a package of weights, which raises an error on import, as pip does; the entry and the file."""
    site = folder / "site"
    package, info = site / "a_package_of_weights", site / "a_package_of_weights-0.1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    digest = random_file(package / "w.pth", catalog.CATALOG[name].architecture)
    path = (package / "w.pth").rename(package / f"net-{digest[:8]}.pth")
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package-of-weights\nVersion: 0.1.0\n")
    files = ["a_package_of_weights/__init__.py", f"a_package_of_weights/{path.name}"]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(site))
    entry = dataclasses.replace(
        catalog.CATALOG[name], file=path.name, package="a-package-of-weights", sha256=digest
    )
    monkeypatch.setitem(catalog.CATALOG, name, entry)
    return entry, path
