"""What the caller has set in torch has no effect on Striate, and Striate does not change it."""

import contextlib
import random
import threading

import numpy as np
import pytest
import torch
from conftest import make_images
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import striate
from striate import anatomy, bundle, memory, models, train, train_seq2seq
from striate.device import on_meta, require_activations, require_weights, standard_settings
from striate.errors import ResourceError

HOSTILE = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "default device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def settings():
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic, torch.get_float32_matmul_precision(),
    )  # fmt: skip


@pytest.fixture(params=HOSTILE)
def hostile(request):
    with HOSTILE[request.param]():
        before = settings()
        yield
        assert settings() == before


@pytest.fixture
def all_hostile():
    with contextlib.ExitStack() as stack:
        for enter in HOSTILE.values():
            stack.enter_context(enter())
        before = settings()
        yield
        assert settings() == before


@pytest.fixture(scope="module")
def expected(run, colors):
    """Results without hostile settings."""
    return results(run, colors)


def results(run, colors):
    model = striate.load(run.best, device="cpu")
    types = {tensor.dtype for tensor in model.network.state_dict().values()}
    assert types == {torch.float32}
    assert not any(tensor.is_inference() for tensor in model.network.parameters())
    paths = sorted(map(str, colors.rglob("*.png")))[:3]
    return (
        np.stack([prediction.probabilities for prediction in model.predict_many(paths)]).tobytes(),
        striate.evaluate(run.best, colors, device="cpu", cache=False).probabilities.tobytes(),
        anatomy.trace("resnet20").macs, anatomy.trace(model.network, size=32).macs,
    )  # fmt: skip


@pytest.mark.usefixtures("hostile")
def test_the_callers_settings_do_not_matter(run, colors, expected):
    assert results(run, colors) == expected


@pytest.mark.usefixtures("all_hostile")
def test_training_and_export_under_all_settings_at_once(run, colors, tmp_path):
    random.seed(5)
    np.random.seed(5)
    torch.default_generator.manual_seed(5)
    again = striate.train(
        colors, model="lenet", epochs=3, batch=8, out=str(tmp_path), name="colors", test=0.2, device="cpu"
    )
    assert bundle.inspect(again.best).weights_sha256 == bundle.inspect(run.best).weights_sha256
    assert again.evaluation.headline() == run.evaluation.headline()
    ours = random.random(), np.random.rand(), torch.rand(1, dtype=torch.float32, device="cpu").item()
    random.seed(5)
    np.random.seed(5)
    torch.default_generator.manual_seed(5)
    assert ours == (
        random.random(), np.random.rand(), torch.rand(1, dtype=torch.float32, device="cpu").item()
    )  # fmt: skip
    parity = striate.export(run.best, tmp_path / "x.pth", "state-dict")
    assert parity.equal == parity.n
    assert parity.max_difference < 1e-6


@pytest.mark.usefixtures("all_hostile")
def test_text_under_all_settings_at_once(text_run):
    translator = striate.load(text_run.best, "cpu")
    sources = text_run.task.data.splits["val"].sources[:5]
    ours = translator.translate(sources, beams=2).results
    with standard_settings():
        assert striate.load(text_run.best, "cpu").translate(sources, beams=2).results == ours


def test_a_module_is_traced_in_the_type_of_its_weights():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
    plain = anatomy.trace(network, size=8)
    assert anatomy.trace(network.double(), size=8).macs == plain.macs
    assert anatomy.trace(network.half(), size=8).macs == plain.macs


def test_threads_restore_the_default_type_that_the_first_one_found():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with standard_settings():
            entered.set()
            leave.wait()
            assert torch.get_default_dtype() == torch.float32

    with default_dtype(torch.float64):
        thread = threading.Thread(target=other)
        with standard_settings():
            thread.start()
            entered.wait()
        meanwhile = torch.get_default_dtype()
        leave.set()
        thread.join()
        assert meanwhile == torch.float32  # the other thread still needed it
        assert torch.get_default_dtype() == torch.float64


def test_the_estimate_is_that_of_the_weights(monkeypatch):
    """A layer of 1,000 x 2,000 weights and 2,000 biases, in single precision, three times."""
    need = 3 * 4 * (1000 * 2000 + 2000)
    monkeypatch.setattr(memory, "available", lambda: need)
    require_weights(lambda: nn.Linear(1000, 2000), "x")
    monkeypatch.setattr(memory, "available", lambda: need - 1)
    with pytest.raises(ResourceError, match=r"it needs at least 24.0 MB, and 24.0 MB are available\. x"):
        require_weights(lambda: nn.Linear(1000, 2000), "x")


def test_a_wide_transformer_is_refused(reversed_words, tmp_path):
    """65,536 x 1,048,576 weights: 275 GB for one matrix."""
    options = {"width": 65536, "hidden": 1048576, "heads": 8, "depth": 1}
    with pytest.raises(ResourceError, match=r"network and its training: it needs at least .* GB.*--width"):
        train_seq2seq(str(reversed_words), epochs=1, out=str(tmp_path / "runs"), **options)
    assert not list(tmp_path.glob("runs/*/state"))


def test_a_batch_that_cannot_fit_is_refused(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_images(tmp_path / "data" / name, 12, (9, 9, 200), size=(8, 8))
    monkeypatch.setattr(memory, "available", lambda: 1 << 30)
    options = {"model": "vgg16", "epochs": 1, "imgsz": 1024, "batch": 32, "cache": False}
    with pytest.raises(ResourceError, match=r"network and its training|a batch of 20 images"):
        train(str(tmp_path / "data"), out=str(tmp_path / "runs"), **options)


def test_layers_that_are_computed_in_place_are_not_counted(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 400)
    require_activations(1000, "x", "y")
    with pytest.raises(ResourceError, match=r"out of memory for x: it needs at least .*\. y"):
        require_activations(1001, "x", "y")


class Operators(TorchDispatchMode):
    """Records the operators that torch computes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


NORMAL = [
    "alexnet",
    "efficientnet_lite0",
    "googlenet",
    "mobilenet_v3_small",
    "resnet18",
    "resnet20",
    "vgg11_bn",
    "vit_ti_16",
]


@pytest.mark.parametrize("name", NORMAL)
def test_networks_without_values_draw_no_normal_numbers(name):
    """torch would load its compiler for them."""
    with Operators() as operators, on_meta():
        network = models.build(name)
        outside = torch.zeros(50, device="cpu").normal_()
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    assert [name for name in operators.names if "normal" in name] == ["aten.normal_.default"]  # outside
    assert outside.std() > 0.5
