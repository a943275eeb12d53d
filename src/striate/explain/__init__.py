"""Explain predictions, and test the explanations."""

from striate.explain.channels import feature_maps, filters
from striate.explain.explainer import Explainer
from striate.explain.explanation import Explanation, explain
from striate.explain.faithfulness import Faithfulness
from striate.explain.methods import METHODS, Method, compute
from striate.explain.randomization import Randomization

__all__ = [
    "METHODS", "Explainer", "Explanation", "Faithfulness", "Method", "Randomization", "compute", "explain",
    "feature_maps", "filters",
]  # fmt: skip
