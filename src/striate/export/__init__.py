"""Trained networks in the formats of other tools, each compared with the original once it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parity:
    """How an exported sequence network compares with the original.

    Attributes:
        n: how many sources were given to both, to write their texts greedily.
        equal: how many texts came out the same, token for token.
        max_difference: the largest difference of a token's log-probability, in nats, when both are given the
            original's texts; rounding explains about 1e-4 of it.
    """

    n: int
    equal: int
    max_difference: float
