"""Keys, shapes, order and scores are torchvision's."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import recorded_answers as oracle
import torch

from striate.models import MODELS, build
from striate.models.vit import VisionTransformer

DIGESTS = json.loads((Path(__file__).parents[1] / "golden" / "state_dicts.json").read_text("utf-8"))

# torchvision's other Vision Transformers are only other arguments; they have no name here.
OTHERS = {
    "vit_l_32": lambda: VisionTransformer(32, 24, 1024, 16),
    "vit_h_14": lambda: VisionTransformer(14, 32, 1280, 16),
}
# name of the record: name of the network and its arguments
LOGITS = {
    "alexnet": ("alexnet", {}),
    "googlenet_eval_ti0_aux0": ("googlenet", {"auxiliary": False}),
    "googlenet_eval_ti0_aux1": ("googlenet", {"auxiliary": True}),
    "mobilenet_v3_small": ("mobilenet_v3_small", {}),
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
    "vgg11": ("vgg11", {}),
    "vgg11_bn": ("vgg11_bn", {}),
    "vit_b_16": ("vit_b_16", {}),
}


def on_meta(name):
    with torch.device("meta"):
        return OTHERS[name]() if name in OTHERS else build(name)


@pytest.mark.parametrize("name", DIGESTS)
def test_state_dict_has_torchvisions_keys_shapes_and_order(name):
    """The digest is of the lines `key shape dtype` of torchvision's own state dict."""
    lines = [f"{key} {list(shape)} {dtype}\n" for key, shape, dtype in oracle.own_entries(on_meta(name))]
    assert len(lines) == DIGESTS[name]["entries"]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == DIGESTS[name]["sha256"]


def test_state_dicts_entry_by_entry(shared):
    """The same from the records, where a difference can be read."""
    recorded = {path.stem for path in (shared / "oracle" / "state_dicts").glob("*.json")}
    assert len(recorded) == 24
    assert set(DIGESTS) == recorded & (set(MODELS) | set(OTHERS))
    assert recorded - set(DIGESTS) == {"inception_v3", "mobilenet_v2"}, "networks that are not built here"
    for name in DIGESTS:
        assert oracle.own_entries(on_meta(name)) == oracle.entries(shared, name), name


def test_every_recorded_answer_is_compared(shared):
    recorded = {path.stem for path in (shared / "oracle" / "logits").glob("*.npz")}
    assert recorded == set(LOGITS) | {"googlenet_train_ti0"}  # the latter in test_googlenet.py


@pytest.mark.parametrize("record", LOGITS)
def test_scores_are_torchvisions(shared, record):
    name, arguments = LOGITS[record]
    answers = oracle.numbers(shared, record)
    network = oracle.filled(shared, name, **arguments).eval()
    make_input = oracle.tools(shared).make_input
    shapes = {"logits": "input_shape", "logits_b": "input_b_shape"}  # the second is not square
    compared = 0
    for dtype, suffix, tolerance in ((torch.float32, "f32", 1e-4), (torch.float64, "f64", 1e-9)):
        network = network.to(dtype)
        for scores, shape in shapes.items():
            if shape in answers:
                images = make_input(tuple(answers[shape])).to(dtype)
                with torch.no_grad():
                    ours = network(images).numpy()
                theirs = answers[f"{scores}_{suffix}"]
                assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()
                compared += 1
    assert compared == (2 if name == "vit_b_16" else 4)
