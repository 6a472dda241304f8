"""Ranking metrics over full rankings, with the three things that move them made explicit.

- Ties are pessimistic: a relevant item ranks behind every other item that has the same score.
- Seen items are masked only where the caller says so (`seen`), never silently.
- A relevant item that a list does not contain has rank infinity.

Every metric takes the ranks of one shopper's relevant items (1-based, from `ranks_from_scores` or `ranks_from_list`).
Relevance is binary. Formulas as in trec_eval (and checked against ranx): NDCG's ideal list holds all relevant items,
average precision divides by their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

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
    lengths = np.array([len(ranks) for ranks in all_ranks], dtype=np.int64)
    if not len(lengths) or not np.all(lengths == 1):
        return {name: np.array([_one(name)(ranks, _k(name)) for ranks in all_ranks]) for name in names}
    ranks = np.concatenate(all_ranks)  # one relevant item each: every metric has a closed form
    return {name: np.where(ranks <= _k(name), _GAIN[name.split("@")[0]](ranks), 0.0) for name in names}


def _one(name: str) -> Callable[[Ranks, int], float]:
    return METRICS[name.split("@")[0]]


def _k(name: str) -> int:
    return int(name.split("@")[1])


_GAIN: Final[Mapping[str, Callable[[Ranks], Ranks]]] = {  # what one relevant item at a rank within k is worth
    "recall": np.ones_like, "hit_rate": np.ones_like, "ndcg": lambda ranks: 1 / np.log2(ranks + 1),
    "map": np.reciprocal, "mrr": np.reciprocal,
}  # fmt: skip


def rivals_ahead(
    scores: NDArray[np.float32], owner: NDArray[np.integer[Any]], relevant: NDArray[np.integer[Any]], *,
    pessimistic: bool = True,
) -> Ranks:  # fmt: skip
    """How many items that are not relevant stand before each relevant one, float64 [E].

    `scores` [B, N] with NaN for items that must not compete; entry e is item `relevant[e]` of row `owner[e]`, rows in
    ascending order. An item with the same score stands before, or behind if not `pessimistic`. Infinity where the
    relevant item itself must not compete.
    """
    own = scores[owner, relevant]
    ahead = np.empty(len(own))
    beats = np.greater_equal if pessimistic else np.greater
    single = len(np.unique(owner)) == len(owner)
    for start in range(0, len(own), 256):
        part = slice(start, start + 256)
        ahead[part] = np.count_nonzero(beats(scores[owner[part]], own[part, None]), axis=1)
    if single:
        ahead -= pessimistic  # itself
    else:
        edges = np.flatnonzero(np.diff(owner)) + 1
        for entries in np.split(np.arange(len(own)), edges):
            mine = own[entries]
            ahead[entries] -= np.count_nonzero(beats(mine[None, :], mine[:, None]), axis=1)
    return np.where(np.isnan(own), np.inf, ahead)


def ranks_from_ahead(ahead: Ranks, owner: NDArray[np.integer[Any]], rows: int) -> list[Ranks]:
    """Per row the ascending ranks of its relevant items; `owner` ascending."""
    parts = np.split(ahead, np.searchsorted(owner, np.arange(1, rows)))
    return [np.sort(part) + np.arange(1, len(part) + 1) for part in parts]


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


def list_diversity(embeddings: NDArray[np.floating[Any]], lists: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """`intra_list_diversity` of each list, float64 [U]; `lists` [U, k] are rows of the `embeddings` [N, d]."""
    k = lists.shape[1]
    if k < 2:
        return np.zeros(len(lists))
    total = np.sum(embeddings[lists].sum(axis=1, dtype=np.float64) ** 2, axis=1)
    own = np.sum(embeddings.astype(np.float64) ** 2, axis=1)[lists].sum(axis=1)
    return np.asarray(1.0 - (total - own) / (k * (k - 1)))


def novelty(lists: NDArray[np.integer[Any]], counts: NDArray[np.integer[Any]], users: int) -> NDArray[np.float64]:
    """Mean self-information of the lists' items in bits, float64 [U]: -log2 of the share of users who touched an item.

    Counted one higher than it is, so that an item nobody touched is finite (Vargas and Castells 2011).
    """
    bits = -np.log2((np.minimum(counts, users) + 1.0) / (users + 1.0))
    return np.asarray(bits[lists].mean(axis=1))
