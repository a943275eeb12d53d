"""Products by oneDNN equal those of float64 up to rounding; it computes them only where it is faster."""

import io

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from striate import models
from striate.kernels import linear as module
from striate.kernels import prepare
from striate.kernels.cross_entropy import linear_cross_entropy
from striate.kernels.folding import fold
from striate.kernels.linear import Linear, linear, pays, product

if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    pytest.skip("this torch has no oneDNN", allow_module_level=True)


@pytest.fixture
def always(monkeypatch):
    """Through oneDNN whatever the size and the processor; gives the calls so far."""
    calls = []

    def counted(x, weight, bias, through=module._by_onednn):
        calls.append(tuple(x.shape))
        return through(x, weight, bias)

    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(module, "LEAST", 0)
    monkeypatch.setattr(module, "_by_onednn", counted)
    return calls


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def require_close(ours, exact, terms):
    """As near as sums of so many products come, their roundings being independent (Higham, Mary 2019)."""
    unit = torch.finfo(torch.float32).eps / 2
    allowed = 8 * terms**0.5 * unit * max(1.0, exact.abs().max().item())
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=allowed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 99),
)
def test_values_and_gradients(leading, width, out, seed):
    x, weight, bias = randn(*leading, width, seed=seed), randn(out, width, seed=seed + 1), randn(out)
    gradient = randn(*leading, out, seed=seed + 2)
    inputs = [t.clone().requires_grad_() for t in (x, weight, bias)]
    exact_inputs = [t.double().requires_grad_() for t in (x, weight, bias)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "mkl_is_slow", lambda: True)
        patch.setattr(module, "LEAST", 0)
        ours = linear(*inputs)
        grads = torch.autograd.grad(ours, inputs, gradient)
    exact = F.linear(*exact_inputs)
    assert ours.is_contiguous()
    require_close(ours, exact, width)
    theirs = torch.autograd.grad(exact, exact_inputs, gradient.double())
    for a, b in zip(grads, theirs, strict=True):
        require_close(a, b, max(out, gradient.numel() // out))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_a_product_of_matrices_that_lie_either_way(always, first, second):
    a, b = randn(40, 30), randn(50, 30, seed=1)
    turned = [t.t().contiguous().t() if turn else t for t, turn in ((a, first), (b, second))]
    require_close(product(*turned), a.double() @ b.double().t(), 30)


def test_a_frozen_weight_gets_no_gradient(always):
    layer = Linear(6, 5)
    layer.weight.requires_grad_(False)
    x = randn(3, 6).requires_grad_()
    layer(x).sum().backward()
    assert always == [(3, 6)]
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((5,), 3.0))
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(3, 6))


def test_it_can_be_differentiated_once(always):
    x = randn(3, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(Linear(6, 5)(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_elsewhere_it_is_torchs(monkeypatch):
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    x, weight = randn(64, 256), randn(256, 256)
    assert pays(x, weight)
    assert not pays(x[:63], weight)  # too few multiplications
    assert not pays(x.double(), weight.double())
    assert not pays(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu"):
        assert not pays(x, weight)
        assert linear(x, weight, torch.zeros(256)).dtype is torch.bfloat16
    monkeypatch.setattr(module, "mkl_is_slow", lambda: False)
    assert not pays(x, weight)
    assert torch.equal(linear(x, weight, torch.ones(256)), F.linear(x, weight, torch.ones(256)))


@pytest.mark.parametrize(
    ("processor", "slow"), [("vendor_id : GenuineIntel", False), ("vendor_id : AuthenticAMD", True)]
)
def test_mkl_is_left_to_the_processors_it_was_made_for(monkeypatch, processor, slow):
    monkeypatch.setattr(module.torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(module.Path, "open", lambda path: io.StringIO(processor))
    assert module.mkl_is_slow.__wrapped__() is slow
    monkeypatch.setattr(module.torch.backends.mkl, "is_available", lambda: False)
    assert module.mkl_is_slow.__wrapped__() is False


def test_the_cross_entropy_uses_it(always):
    x, weight, bias, expected = randn(6, 5), randn(9, 5, seed=1), randn(9), torch.arange(6)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    ours = linear_cross_entropy(*inputs, expected, 0.1)
    exact = F.cross_entropy(F.linear(*exact_inputs), expected, label_smoothing=0.1)
    require_close(ours, exact, 9)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(exact, exact_inputs), strict=True):
        require_close(a, b, 9)
    assert always == [(6, 5)]


def test_a_transformer_uses_it_in_training_and_folded(always):
    torch.manual_seed(0)
    network = models.build("vit_ti_16", num_classes=5, input_size=32)
    prepare(network, torch.device("cpu"), training=True)
    images = randn(2, 3, 32, 32)
    layers = 4 * 12  # queries, keys and values at once; the sum of the heads; two of the feed-forward
    network(images).sum().backward()
    assert len(always) == layers
    network.eval()
    folded = fold(network, (3, 32, 32))
    assert folded is not network
    always.clear()
    with torch.inference_mode():
        answer = folded(images)
    assert len(always) == layers
    torch.testing.assert_close(answer, network(images))
