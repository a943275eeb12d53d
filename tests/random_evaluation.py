"""An evaluation of random probabilities, for tests of reports."""

import numpy as np

from striate.inference.evaluation import measure


def random_evaluation(names, n=60):
    """Evaluates `n` random predictions of the classes `names` on random images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), n)
    images = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
    files = tuple(f"{i}.png" for i in range(n))
    chances = rng.dirichlet(np.ones(len(names)), n)
    return measure(files, labels, chances, tuple(names), images=images, data="data", split="test")
