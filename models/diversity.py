"""Maximal marginal relevance (Carbonell and Goldstein 1998): relevance against similarity to what is already chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    order = np.empty(min(k, n), dtype=np.int64)
    nearest = np.full(n, -np.inf)  # highest cosine to anything chosen so far
    marginal = scaled.astype(np.float64)
    for place in range(len(order)):
        best = int(np.argmax(marginal))
        order[place] = best
        np.maximum(nearest, embeddings @ embeddings[best], out=nearest)
        marginal = balance * scaled - (1 - balance) * nearest
        marginal[order[: place + 1]] = -np.inf
    return order
