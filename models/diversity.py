"""A list as a whole: maximal marginal relevance (Carbonell and Goldstein 1998) and calibration (Steck 2018)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SMOOTHING: Final = 0.01
"""Share of the wanted mix in the list's own, so that a category which the list lacks is finitely far away."""


def mmr(
    relevance: NDArray[np.floating[Any]], embeddings: NDArray[np.floating[Any]], k: int, balance: float = 0.7
) -> NDArray[np.int64]:
    """Greedy order of at most `k` of the n candidates, as positions into `relevance` [n].

    `embeddings` [n, d] are L2-normalised. `balance` 1 is pure relevance, 0 pure diversity; relevance is scaled to
    [0, 1] first, so that the balance means the same for every model. The most relevant candidate is always first.
    Raises ValueError for a balance outside [0, 1].
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance {balance} is not within [0, 1]")
    n = len(relevance)
    if n == 0 or k <= 0:
        return np.zeros(0, dtype=np.int64)
    span = float(np.ptp(relevance))
    scaled = (relevance - relevance.min()) / span if span > 0 else np.zeros(n)
    order, cosines = np.empty(min(k, n), dtype=np.int64), embeddings @ embeddings.T
    nearest, marginal = np.full(n, -np.inf), scaled.astype(np.float64)
    weighed = balance * marginal
    for place in range(len(order)):
        best = order[place] = marginal.argmax()
        weighed[best] = -np.inf
        np.maximum(nearest, cosines[best], out=nearest)  # the highest cosine to anything chosen so far
        np.multiply(nearest, balance - 1, out=marginal)
        marginal += weighed
    return order


def calibrated(
    relevance: NDArray[np.floating[Any]], category: NDArray[np.integer[Any]], wanted: NDArray[np.floating[Any]], k: int,
    weight: float,
) -> NDArray[np.int64]:  # fmt: skip
    """Greedy order of at most `k` of the n candidates, as positions into `relevance` [n].

    Every place maximises (1 - weight) * sum of relevance - weight * KL(wanted, the list's mix), Steck 2018, eq. 5; of
    the divergence only what the place's own category changes of it is computed. `category` [n] are codes into `wanted`
    [C], the shares that the list should have. Raises ValueError for a weight outside [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight {weight} is not within [0, 1]")
    order = np.empty(min(k, len(relevance)), dtype=np.int64)
    counts, floor = np.zeros(len(wanted)), np.where(wanted > 0, SMOOTHING * wanted, 1.0)  # what is not wanted gains 0
    gain, weighed = (1 - weight) * relevance.astype(np.float64), weight * wanted
    for place in range(len(order)):
        share = (1 - SMOOTHING) / (place + 1)
        nearer = weighed * np.log1p(share / (share * counts + floor))
        best = order[place] = (gain + nearer[category]).argmax()
        counts[category[best]] += 1
        gain[best] = -np.inf
    return order


def miscalibration(wanted: NDArray[np.floating[Any]], mix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """KL(wanted, mix) in nats over the last axis: shares [C] against [..., C]; 0 where they are the same."""
    smoothed = (1 - SMOOTHING) * mix + SMOOTHING * wanted
    some = wanted > 0
    return np.asarray((wanted[some] * np.log(wanted[some] / smoothed[..., some])).sum(axis=-1), np.float64)
