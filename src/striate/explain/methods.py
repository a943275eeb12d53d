"""The methods by name: one table, and `compute`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from striate.device import standard_settings
from striate.errors import UsageError, unknown_name
from striate.explain import attention, cam, gradients, perturbation
from striate.explain.explainer import Explainer
from striate.explain.forward import Forward
from striate.progress import AUTO, Progress

MAX_SAMPLES = 1_000_000


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`.

    Attributes:
        compute: explainer, image and target to the map, for networks with `maps` a pass and a target for each
            image to their maps; its docstring has the equation and the source.
        summary: for `--help` and the documentation.
        networks: `maps`: those with feature maps or tokens; `attention`: Vision Transformers; `any`.
        samples: how many passes it makes by default, if that is a choice; None if not.
        fine: whether it reads the last maps of twice the resolution.
        versus: whether it compares with other classes.
        is_slow: whether it reports its own progress.
    """

    compute: Callable[..., Tensor]
    summary: str
    networks: Literal["maps", "attention", "any"] = "any"
    samples: int | None = None
    fine: bool = False
    versus: bool = False
    is_slow: bool = False


METHODS: dict[str, Method] = {
    "grad-cam": Method(cam.grad_cam, "where the class is, as coarse as the last feature maps", "maps"),
    "layer-cam": Method(cam.layer_cam, "the same, twice as fine", "maps", fine=True),
    "finer-cam": Method(cam.finer_cam, "what tells the class from similar ones", "maps", versus=True),
    "integrated-gradients": Method(
        gradients.integrated_gradients, "how much each pixel adds to the score", samples=32, is_slow=True
    ),
    "smoothgrad": Method(
        gradients.smooth_grad, "how much the score depends on each pixel", samples=25, is_slow=True
    ),
    "occlusion": Method(
        perturbation.occlusion, "how far the probability falls if a square is hidden", is_slow=True
    ),
    "rise": Method(perturbation.rise, "the same with random masks; the slowest", samples=1000, is_slow=True),
    "attention-rollout": Method(
        attention.attention_rollout, "where a Transformer looks, for any class", "attention"
    ),
    "relevance": Method(attention.relevance, "where a Transformer looks for the class", "attention"),
}

DEFAULT = "grad-cam"


@standard_settings()
def compute(
    explainer: Explainer,
    image: Tensor,
    target: int,
    name: str = DEFAULT,
    *,
    samples: int | None = None,
    versus: Sequence[int] = (),
    progress: Progress = AUTO,
    forward: Forward | None = None,
) -> Tensor:
    """Compute the map of one image.

    Args:
        explainer: of the network.
        image: `[1, channels, height, width]`, as the network reads it.
        target: number of the class.
        name: a key of `METHODS`.
        samples: passes of a method that has this choice; None for its default.
        versus: classes to compare with, for `finer-cam`.
        progress: receives a stage of a slow method.
        forward: the image's pass, if it has been made already, of a method whose networks have `maps`.

    Returns:
        float32 `[rows, columns]`: of the feature maps, the patches or the image.

    Raises:
        UsageError: an unknown method, an option that it does not have, or a network that it cannot explain.
    """
    method = describe(name)
    options: dict[str, Any] = {}
    if samples is not None:
        if method.samples is None:
            others = ", ".join(key for key, row in METHODS.items() if row.samples is not None)
            raise UsageError(f"{samples} samples for {name}", "it takes none", f"Use {others}")
        if not 1 <= samples <= MAX_SAMPLES:
            raise UsageError(f"{samples} samples", f"they are from 1 to {MAX_SAMPLES:,}", "Leave it out")
        options["samples"] = samples
    if versus:
        if not method.versus:
            raise UsageError(f"classes to compare with, for {name}", "it explains one class", "Use finer-cam")
        options["versus"] = versus
    if method.networks == "maps":
        passed = forward or explainer.forward(image, fine=method.fine)
        return method.compute(passed, [target], **options)[0]
    if method.is_slow:
        options["progress"] = progress
        progress.begin(name, _passes(method, image, samples), "passes")
    try:
        return method.compute(explainer, image, target, **options)
    finally:
        if method.is_slow:
            progress.end()


def _passes(method: Method, image: Tensor, samples: int | None) -> int:
    if method.samples is None:
        return perturbation.windows(int(image.shape[2]), int(image.shape[3]))
    return samples or method.samples


def describe(name: str) -> Method:
    """The row of `METHODS` for a name; raises UsageError with near matches."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
