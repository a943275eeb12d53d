"""What torchvision's networks answer, from the shared material: weights and images that need no download."""

import importlib.util
import json
from functools import cache, lru_cache

import numpy as np
import torch

from striate.models import build


@cache
def tools(shared):
    """The module that fills any network with deterministic weights and makes deterministic images."""
    path = shared / "oracle" / "oracle_fill.py"
    spec = importlib.util.spec_from_file_location("oracle_fill", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.hash_uniform.__defaults__ = (1 << 14,)  # the same numbers, in pieces that fit the cache
    return module


def numbers(shared, name):
    """The arrays recorded under that name."""
    with np.load(shared / "oracle" / "logits" / f"{name}.npz") as file:
        return dict(file)


def entries(shared, name):
    """Key, shape and dtype of torchvision's state dict, in its order."""
    recorded = json.loads((shared / "oracle" / "state_dicts" / f"{name}.json").read_text("utf-8"))
    return [(key, tuple(shape), dtype) for key, shape, dtype in recorded["entries"]]


def own_entries(network):
    """The same of a network here."""
    return [
        (key, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in network.state_dict().items()
    ]


@lru_cache(maxsize=128)
def _weights(shared, key, shape):
    """The deterministic weights for a key, kept a while: the VGGs share their large ones."""
    return tools(shared).fill_value(key, shape)


def filled(shared, name, **arguments):
    """A network with the deterministic weights, float32."""
    with torch.device("meta"):
        network = build(name, **arguments)
    network = network.to_empty(device="cpu")
    state = network.state_dict()
    network.load_state_dict({key: _weights(shared, key, value.shape) for key, value in state.items()})
    return network
