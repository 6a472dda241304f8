"""Item-to-item co-occurrence: what else do shoppers of this item look at soon before or after it.

A pair of items that one shopper touched `gap` places apart counts gap_decay^(gap-1) x 0.5^(age / half-life); the sum is
divided by (mass of a x mass of b)^power, the cosine's normalisation for power 0.5, with a shrinkage that keeps rare
pairs humble. Numpy only, so that serving can look neighbours up without scipy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.popularity import DAY_MS
from models.retrieval import looked_up

Rows = NDArray[np.integer[Any]]
FEATURES: Final = ("cooccurrence_score", "cooccurrence_steady_score")
"""Whether an item goes with the newest of what the shopper touched last; and with all of it alike."""
_DENSE_BELOW: Final = 5000  # items; 25M pairs of 8 bytes
_RECENT: Final = 20
_MOST_DENSE, _MOST_SPARSE = 400_000_000, 50_000_000  # pairs; a few seconds, and a minute and 5 GiB where all differ


@dataclass(frozen=True)
class CooccurrenceConfig:
    """How pairs are counted; and the say of a shopper's recent items, place^-recency with the newest at place 1."""

    window: int = 30
    gap_decay: float = 0.95
    half_life_days: float = 30.0
    power: float = 0.5
    shrink: float = 1.0
    neighbours: int = 50
    recency: float = 1.0

    def __post_init__(self) -> None:
        if self.window < 1 or self.neighbours < 1:
            raise ValueError(f"window and neighbours must be at least 1: {self}")
        if not 0 < self.gap_decay <= 1 or self.half_life_days <= 0 or min(self.shrink, self.recency) < 0:
            raise ValueError(f"gap_decay in (0, 1], half_life_days > 0, shrink and recency >= 0 are needed: {self}")

    @property
    def say(self) -> NDArray[np.float64]:
        """The say of recent items by place, newest first."""
        return np.arange(1.0, _RECENT + 1) ** -self.recency


class Votes(NamedTuple):
    """Sums by neighbour: `rows` int64 [n] ascending, `scores` float64 [n]; `steady` [n] with all recent items alike."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    steady: NDArray[np.float64]

    def best(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best `k` rows and their scores, best first; fewer where there are no more."""
        rows, scores, _ = self
        if len(rows) > k:
            best = np.argpartition(-scores, k)[:k]
            rows, scores = rows[best], scores[best]
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order].astype(np.float32)

    def features(self, rows: Rows) -> dict[str, NDArray[np.float32]]:
        """What rankers are told of given `rows` [n]; 0 for one that is nobody's neighbour."""
        sums = zip(FEATURES, (self.scores, self.steady), strict=True)
        return {name: looked_up(self.rows, one, rows, 0.0).astype(np.float32) for name, one in sums}


@dataclass(frozen=True)
class Cooccurrence:
    """The published neighbours: `ids` int32 [N, K] (0-based rows, -1 = none), `scores` float32 [N, K], best first.

    `say` float64 [R]: what a shopper's recent items count, newest first; older ones than R count nothing.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    say: NDArray[np.float64] = field(default_factory=lambda: CooccurrenceConfig().say)

    @staticmethod
    def load(path: Path) -> Cooccurrence:
        """Read `neighbours.npz`. Raises ValueError if the arrays do not belong together."""
        with np.load(path, allow_pickle=False) as arrays:
            ids, scores, say = arrays["ids"], arrays["scores"], arrays["say"]
        if ids.shape != scores.shape or ids.ndim != 2:
            raise ValueError(f"{path}: ids {ids.shape} and scores {scores.shape} do not belong together")
        return Cooccurrence(ids.astype(np.int32, copy=False), scores.astype(np.float32, copy=False), say)

    def save(self, path: Path) -> None:
        np.savez_compressed(path, ids=self.ids, scores=self.scores, say=self.say)

    def votes(self, recent: Rows) -> Votes:
        """What the neighbours of a shopper's `recent` rows (newest first) say."""
        recent = np.asarray(recent, dtype=np.int64)[: len(self.say)]
        weight = self.say[: len(recent)]
        valid = (recent >= 0) & (recent < len(self.ids))
        ids, scores = self.ids[recent[valid]], self.scores[recent[valid]].astype(np.float64)
        keep = ids >= 0
        rows, inverse = np.unique(ids[keep].astype(np.int64), return_inverse=True)

        def summed(votes: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(inverse, weights=votes[keep], minlength=len(rows)).astype(np.float64)

        return Votes(rows, summed(scores * weight[valid, None]), summed(scores))

    def retrieve(self, recent: Rows, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`votes(recent).best(k)`."""
        return self.votes(recent).best(k)

    def features(self, recent: Rows, rows: Rows) -> dict[str, NDArray[np.float32]]:
        """`votes(recent).features(rows)`."""
        return self.votes(recent).features(rows)


def build(
    users: Rows, items: Rows, time_ms: Rows, n_items: int, now_ms: int, config: CooccurrenceConfig | None = None
) -> Cooccurrence:
    """Neighbours from interactions (any order; `users` and `items` are 0-based rows)."""
    config = config or CooccurrenceConfig()
    order = np.lexsort((items, time_ms, users))
    users, items = users[order].astype(np.int64), items[order].astype(np.int64)
    fresh = 0.5 ** ((now_ms - time_ms[order]) / (config.half_life_days * DAY_MS))
    pairs = _Dense(n_items) if n_items <= _DENSE_BELOW else _Sparse(n_items)
    waiting: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for gap in range(1, config.window + 1):
        same = users[gap:] == users[:-gap]
        if not same.any():
            break
        same &= items[gap:] != items[:-gap]
        a, b = items[:-gap][same], items[gap:][same]
        # A pair counts the same both ways: it is summed under the lower row.
        keys = np.minimum(a, b) * n_items + np.maximum(a, b)
        waiting.append((keys, config.gap_decay ** (gap - 1) * fresh[gap:][same]))
        if sum(len(keys) for keys, _ in waiting) >= pairs.part:
            pairs.add(*_joined(waiting))
            waiting = []
    if waiting:
        pairs.add(*_joined(waiting))
    ids, scores = pairs.nearest(config)
    return Cooccurrence(ids, scores, config.say)


def most_pairs(n_items: int) -> int:
    """So many pairs (interactions x window) may be counted: those of a large catalogue are sorted, slow and wide."""
    return _MOST_DENSE if n_items <= _DENSE_BELOW else _MOST_SPARSE


def _joined(
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([weights for _, weights in parts])


class _Dense:
    """Sums of pairs of a small catalogue, as one square of which the upper half is filled."""

    part: Final = 4_000_000
    """So many pairs are summed at once."""

    def __init__(self, n_items: int) -> None:
        self._sums = np.zeros((n_items, n_items))

    def add(self, keys: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        flat = self._sums.reshape(-1)
        flat += np.bincount(keys, weights=weights, minlength=len(flat))

    def nearest(self, config: CooccurrenceConfig) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        sums = self._sums + self._sums.T
        weight = (sums.sum(axis=1) + config.shrink) ** -config.power
        sums *= weight[:, None]
        sums *= weight[None, :]
        k = min(config.neighbours, len(sums))
        ids = np.full((len(sums), config.neighbours), -1, dtype=np.int32)
        out = np.zeros((len(sums), config.neighbours), dtype=np.float32)
        best = np.sort(np.argpartition(-sums, k - 1, axis=1)[:, :k], axis=1)
        scores = np.take_along_axis(sums, best, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")  # equal scores: the lower row first
        best, scores = np.take_along_axis(best, order, axis=1), np.take_along_axis(scores, order, axis=1)
        ids[:, :k], out[:, :k] = np.where(scores > 0, best, -1), scores
        return ids, out


class _Sparse:
    """Sums of pairs of a large catalogue, by sorted keys (the lower row x items + the higher)."""

    part: Final = 20_000_000  # each part is merged with all keys so far

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items
        self._keys, self._sums = np.zeros(0, dtype=np.int64), np.zeros(0)

    def add(self, keys: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        self._keys, inverse = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        weights = np.concatenate([self._sums, weights])
        self._sums = np.bincount(inverse, weights=weights, minlength=len(self._keys)).astype(np.float64)

    def nearest(self, config: CooccurrenceConfig) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        n_items, low, high = self._n_items, self._keys // self._n_items, self._keys % self._n_items
        a, b, sums = np.concatenate([low, high]), np.concatenate([high, low]), np.tile(self._sums, 2)
        weight = (np.bincount(a, weights=sums, minlength=n_items) + config.shrink) ** -config.power
        scores = sums * weight[a] * weight[b]
        order = np.lexsort((b, -scores, a))
        a, b, scores = a[order], b[order], scores[order]
        place = np.arange(len(a)) - np.searchsorted(a, np.arange(n_items))[a]
        keep = place < config.neighbours
        ids = np.full((n_items, config.neighbours), -1, dtype=np.int32)
        out = np.zeros((n_items, config.neighbours), dtype=np.float32)
        ids[a[keep], place[keep]] = b[keep]
        out[a[keep], place[keep]] = scores[keep]
        return ids, out
