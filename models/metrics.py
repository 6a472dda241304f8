"""Ranking metrics over full rankings, with the three things that move them made explicit.

- Ties are pessimistic: a relevant item ranks behind every other item that has the same score.
- Seen items are masked only where the caller says so (`seen`), never silently.
- A relevant item that a list does not contain has rank infinity.

Every metric takes the ranks of one shopper's relevant items (1-based, from `ranks_from_scores` or `ranks_from_list`).
Relevance is binary. Formulas as in trec_eval (and checked against ranx): NDCG's ideal list holds all relevant items,
average precision divides by their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.float64]


def ranks_from_scores(
    scores: NDArray[np.floating[Any]], relevant: NDArray[np.integer[Any]], seen: NDArray[np.integer[Any]] | None = None
) -> Ranks:
    """Ranks of `relevant` (rows into `scores` [N]) among all items that are not `seen`, ascending.

    A relevant item that is also seen cannot be recommended: its rank is infinity. NaN scores rank last.
    """
    values = np.nan_to_num(scores.astype(np.float64), nan=-np.inf)
    hidden = np.zeros(len(values), dtype=bool)
    if seen is not None:
        hidden[seen] = True
    others = ~hidden
    others[relevant] = False
    rivals = np.sort(values[others])
    found = np.sort(values[relevant[~hidden[relevant]]])[::-1]
    ahead = len(rivals) - np.searchsorted(rivals, found, side="left")  # rivals with an equal or a better score
    ranks = np.full(len(relevant), np.inf)
    ranks[: len(found)] = ahead + np.arange(1, len(found) + 1)
    return ranks


def ranks_from_list(ranked: Sequence[Any] | NDArray[Any], relevant: Sequence[Any] | NDArray[Any]) -> Ranks:
    """Ranks of `relevant` ids in the list `ranked` (best first), ascending; infinity for those it lacks."""
    place = {item: i + 1 for i, item in enumerate(ranked)}
    return np.sort(np.array([place.get(item, np.inf) for item in relevant], dtype=np.float64))


def recall(ranks: Ranks, k: int) -> float:
    """Share of the relevant items within the first `k`."""
    return float(np.mean(ranks <= k))


def hit_rate(ranks: Ranks, k: int) -> float:
    """1 if any relevant item is within the first `k`."""
    return float(np.any(ranks <= k))


def ndcg(ranks: Ranks, k: int) -> float:
    """Normalised discounted cumulative gain with binary gains and a log2 discount (Jarvelin and Kekalainen 2002)."""
    gain = np.sum(1.0 / np.log2(ranks[ranks <= k] + 1.0))
    ideal = np.sum(1.0 / np.log2(np.arange(2, min(len(ranks), k) + 2)))
    return float(gain / ideal)


def average_precision(ranks: Ranks, k: int) -> float:
    """Mean over the relevant items of the precision at their rank; zero for those beyond `k`."""
    hits = ranks[ranks <= k]
    return float(np.sum(np.arange(1, len(hits) + 1) / hits) / len(ranks))


def reciprocal_rank(ranks: Ranks, k: int) -> float:
    """One over the rank of the first relevant item; zero beyond `k`."""
    return float(1.0 / ranks[0]) if len(ranks) and ranks[0] <= k else 0.0


METRICS = {
    "recall": recall, "ndcg": ndcg, "map": average_precision, "mrr": reciprocal_rank, "hit_rate": hit_rate,
}


def per_shopper(all_ranks: Sequence[Ranks], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Columns such as `ndcg@10` with one value per shopper; `names` are `metric@k` with a metric of METRICS."""
    table = {}
    for name in names:
        metric, k = name.split("@")
        table[name] = np.array([METRICS[metric](ranks, int(k)) for ranks in all_ranks])
    return table


def coverage(lists: Sequence[NDArray[np.integer[Any]]], catalogue: int) -> float:
    """Share of the catalogue that is in at least one shopper's list."""
    return len(np.unique(np.concatenate(lists))) / catalogue if lists else 0.0


def intra_list_diversity(embeddings: NDArray[np.floating[Any]]) -> float:
    """One minus the mean cosine between two different items of a list; `embeddings` [k, d] are L2-normalised."""
    k = len(embeddings)
    if k < 2:
        return 0.0
    total = float(np.sum(embeddings.sum(axis=0) ** 2)) - float(np.sum(embeddings**2))
    return 1.0 - total / (k * (k - 1))
