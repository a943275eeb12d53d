"""Integrated gradients and SmoothGrad."""

import torch
from pretrained import build

from striate.explain import Explainer
from striate.explain.gradients import integrated_gradients, smooth_grad


def material():
    network, _ = build("lenet", 32, num_classes=4)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    return network.eval().requires_grad_(False), image, Explainer(network, (3, 32, 32))


def gradient(network, image, target):
    x = image.clone().requires_grad_()
    (found,) = torch.autograd.grad(network(x)[0, target], x)
    return found


def test_integrated_gradients_add_up_to_the_score():
    """Completeness (proposition 1 of the paper), and a plain Riemann sum of the integral."""
    network, image, explainer = material()
    found = integrated_gradients(explainer, image, 2, samples=100)
    difference = float(network(image)[0, 2] - network(torch.zeros_like(image))[0, 2])
    assert abs(float(found.sum()) - difference) < 0.01 * abs(difference)
    steps = (torch.arange(200) + 0.5) / 200
    mean = sum(gradient(network, step * image, 2) for step in steps) / 200
    torch.testing.assert_close(found, (image * mean).sum(dim=1)[0], rtol=0, atol=0.01 * float(found.max()))


def test_smooth_grad_without_noise_is_the_gradient():
    network, image, explainer = material()
    expected = gradient(network, image, 1).abs().amax(dim=1)[0]
    torch.testing.assert_close(smooth_grad(explainer, image, 1, samples=3, noise=0.0), expected)


def test_smooth_grad_averages_noisy_copies():
    network, image, explainer = material()
    generator = torch.Generator().manual_seed(0)
    sigma = 0.2 * float(image.max() - image.min())
    noise = torch.randn(20, 3, 32, 32, generator=generator)
    found = smooth_grad(explainer, image, 1, samples=16, noise=0.2)
    mean = sum(gradient(network, image + sigma * noise[i : i + 1], 1) for i in range(16)) / 16
    torch.testing.assert_close(found, mean.abs().amax(dim=1)[0], rtol=1e-4, atol=1e-6)
