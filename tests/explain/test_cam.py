"""Class activation maps against plain implementations with hooks."""

import pytest
import torch
import torch.nn.functional as F
from pretrained import build
from torch import nn

from striate.explain import Explainer, compute
from striate.explain.cam import grad_cam, nearest_classes
from striate.explain.splitting import _Halves, _LinearHalves

SHAPE = (3, 32, 32)


def material():
    network, _ = build("resnet20", 32, num_classes=6)
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    return network.eval(), image, Explainer(network, SHAPE)


def recorded(network, images, layer):
    """The feature maps of a layer and the scores by a hook, as most implementations get them."""
    kept = []
    handle = layer.register_forward_hook(lambda _, inputs, output: kept.append(output))
    try:
        scores = network(images)
    finally:
        handle.remove()
    return kept[0], scores


def hooked(network, image, layer, objective):
    """Feature maps and gradients `[channels, rows, columns]` of one image."""
    maps, scores = recorded(network, image, layer)
    (gradient,) = torch.autograd.grad(objective(scores[0]), maps)
    return maps[0].detach(), gradient[0]


def test_grad_cam():
    network, image, explainer = material()
    for target in (0, 5):
        maps, gradient = hooked(network, image, network.layer3, lambda s, c=target: s[c])
        expected = torch.einsum("k,kij->ij", gradient.mean(dim=(1, 2)), maps).clamp(min=0)
        torch.testing.assert_close(compute(explainer, image, target), expected, rtol=1e-5, atol=1e-5)
        # In closed form: the classifier's weights divided by the number of units.
        weights = network.linear.weight[target].detach() / 64
        closed = (weights[:, None, None] * maps).sum(dim=0).clamp(min=0)
        torch.testing.assert_close(compute(explainer, image, target), closed, rtol=1e-5, atol=1e-5)


def require_equal_to_autograd(network, features, image, kind):
    """Scores, maps, gradients and their means of a pass; `kind` is the class that computes them."""
    wanted = [{3: 1.0, 1: -0.5}] * len(image)
    maps, scores = recorded(network, image, features)
    (gradient,) = torch.autograd.grad((scores[:, 3] - 0.5 * scores[:, 1]).sum(), maps)
    for folded in (False, True):
        explainer = Explainer(network, tuple(image.shape[1:]), folded=folded)
        assert type(explainer._split(fine=False)) is kind
        forward = explainer.forward(image)
        found = (
            (forward.maps, maps),
            (forward.scores, scores),
            (forward.gradients(wanted), gradient),
            (forward.mean_gradients(wanted), gradient.mean(dim=(2, 3))),
        )
        tolerance = 1e-4 if folded else 1e-5  # random weights amplify what folding rounds differently
        for a, b in found:
            torch.testing.assert_close(
                a, b.detach(), rtol=1e-3, atol=tolerance * float(b.detach().abs().max())
            )


def test_a_hidden_layer_after_a_global_pool():
    network, _ = build("mobilenet_v3_small", 64, num_classes=6)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))[1:]
    require_equal_to_autograd(network.eval(), network.features, image, _LinearHalves)


class Functions(nn.Module):
    def forward(self, x):
        return torch.flatten(F.adaptive_avg_pool2d(F.max_pool2d(x, 2), (3, 2)), 1)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (
            [nn.MaxPool2d(3, 2, padding=1), nn.Flatten(), nn.Linear(64, 5), nn.Hardswish(), nn.Linear(5, 4)],
            True,
        ),
        ([nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(24, 5), nn.Linear(5, 4)], True),
        ([Functions(), nn.Linear(24, 5), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(5, 4)], True),
        ([nn.MaxPool2d(4, 3), nn.Dropout(), nn.Flatten(), nn.Linear(16, 4)], True),
        # An average with zeros around the maps loses a part of the gradient at the border.
        ([nn.AvgPool2d(3, 2, padding=1), nn.Flatten(), nn.Linear(64, 4)], False),
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)], False),
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.Softmax(dim=1)], False),
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.ReLU()], False),
    ],
)
def test_heads_of_users_networks(head, kind):
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    network = nn.Sequential(features, *head).eval()
    require_equal_to_autograd(network, features, torch.randn(2, 3, 8, 8), _LinearHalves if kind else _Halves)


def test_weights_that_change_later():
    """Without folding, an explainer follows them; so do the sums over units."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 5), nn.Linear(5, 4)
    ).eval()
    explainer, image = Explainer(network, (3, 8, 8)), torch.randn(1, 3, 8, 8)
    before = compute(explainer, image, 3)
    with torch.no_grad():
        network[2].weight.mul_(torch.rand(network[2].weight.shape))
    after = compute(explainer, image, 3)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, compute(Explainer(network, (3, 8, 8)), image, 3))


def test_images_of_one_pass_have_the_maps_that_each_has_alone():
    for name, size in (("resnet20", 32), ("mobilenet_v3_small", 64), ("lenet", 32), ("vit_ti_16", 64)):
        network, _ = build(name, size, num_classes=6)
        network.eval()
        images = torch.randn(3, network.in_channels, size, size, generator=torch.Generator().manual_seed(5))
        explainer = Explainer(network, tuple(images.shape[1:]), folded=True)
        found = grad_cam(explainer.forward(images), [4, 0, 4])
        with torch.inference_mode():  # as callers may have it
            scores, best = explainer.scores_and_maps(images)
        torch.testing.assert_close(
            best[0], compute(explainer, images[:1], int(scores[0].argmax())), rtol=1e-3, atol=1e-5
        )
        for one, image, target in zip(found, images, (4, 0, 4), strict=True):
            alone = compute(explainer, image[None], target)
            torch.testing.assert_close(one, alone, rtol=1e-3, atol=1e-4 * float(alone.max()))


def test_layer_cam_reads_the_stage_before():
    network, image, explainer = material()
    maps, gradient = hooked(network, image, network.layer2, lambda s: s[4])
    expected = (gradient.clamp(min=0) * maps).sum(dim=0).clamp(min=0)
    found = compute(explainer, image, 4, "layer-cam")
    assert found.shape == (16, 16)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_finer_cam_is_the_map_of_the_mean_difference():
    network, image, explainer = material()
    scores = network(image)[0].detach()
    order = sorted(range(6), key=lambda c: abs(float(scores[c] - scores[2])))
    assert nearest_classes(scores, 2) == order[1:4]
    for versus, others in (((), order[1:4]), ((5,), [5])):
        maps, gradient = hooked(
            network, image, network.layer3, lambda s, o=others: sum(s[2] - s[d] for d in o) / len(o)
        )
        expected = (gradient.mean(dim=(1, 2), keepdim=True) * maps).sum(dim=0).clamp(min=0)
        torch.testing.assert_close(
            compute(explainer, image, 2, "finer-cam", versus=versus), expected, rtol=1e-5, atol=1e-5
        )


def test_finer_cam_without_other_classes_is_grad_cam():
    network, _ = build("lenet", 32, num_classes=1)
    explainer, image = Explainer(network, (3, 32, 32)), torch.randn(1, 3, 32, 32)
    assert torch.equal(compute(explainer, image, 0, "finer-cam"), compute(explainer, image, 0))
