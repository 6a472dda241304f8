"""Item-to-item co-occurrence: what else do shoppers of this item look at soon before or after it.

A pair of items that one shopper touched `gap` places apart counts gap_decay^(gap-1) x 0.5^(age / half-life); the sum is
divided by (mass of a x mass of b)^power, the cosine's normalisation for power 0.5, with a shrinkage that keeps rare
pairs humble. Numpy only, so that serving can look neighbours up without scipy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.popularity import DAY_MS
from models.retrieval import looked_up

Rows = NDArray[np.integer[Any]]
_DENSE_BELOW: Final = 5000  # items; 25M pairs of 8 bytes


@dataclass(frozen=True)
class CooccurrenceConfig:
    window: int = 8
    gap_decay: float = 0.8
    half_life_days: float = 30.0
    power: float = 0.5
    shrink: float = 1.0
    neighbours: int = 50

    def __post_init__(self) -> None:
        if self.window < 1 or self.neighbours < 1:
            raise ValueError(f"window and neighbours must be at least 1: {self}")
        if not 0 < self.gap_decay <= 1 or self.half_life_days <= 0 or self.shrink < 0:
            raise ValueError(f"gap_decay in (0, 1], half_life_days > 0 and shrink >= 0 are needed: {self}")


class Votes(NamedTuple):
    """Sums by neighbour: `rows` int64 [n] ascending, `scores` float64 [n]."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]

    def best(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best `k` rows and their scores, best first; fewer where there are no more."""
        rows, scores = self
        if len(rows) > k:
            best = np.argpartition(-scores, k)[:k]
            rows, scores = rows[best], scores[best]
        order = np.lexsort((rows, -scores))
        return rows[order], scores[order].astype(np.float32)

    def of(self, rows: Rows) -> NDArray[np.float32]:
        """The same score for given `rows` [n]; 0 for one that is nobody's neighbour."""
        return looked_up(self.rows, self.scores, rows, 0.0).astype(np.float32)


@dataclass(frozen=True)
class Cooccurrence:
    """The published neighbours: `ids` int32 [N, K] (0-based rows, -1 = none), `scores` float32 [N, K], best first."""

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    recency_decay: float = 0.85

    @staticmethod
    def load(path: Path) -> Cooccurrence:
        """Read `neighbours.npz`. Raises ValueError if the arrays do not belong together."""
        with np.load(path, allow_pickle=False) as arrays:
            ids, scores = arrays["ids"], arrays["scores"]
        if ids.shape != scores.shape or ids.ndim != 2:
            raise ValueError(f"{path}: ids {ids.shape} and scores {scores.shape} do not belong together")
        return Cooccurrence(ids.astype(np.int32, copy=False), scores.astype(np.float32, copy=False))

    def save(self, path: Path) -> None:
        np.savez_compressed(path, ids=self.ids, scores=self.scores)

    def votes(self, recent: Rows) -> Votes:
        """What the neighbours of a shopper's `recent` rows (newest first) say."""
        recent = np.asarray(recent, dtype=np.int64)
        weight = self.recency_decay ** np.arange(len(recent))
        valid = (recent >= 0) & (recent < len(self.ids))
        ids, votes = self.ids[recent[valid]], self.scores[recent[valid]] * weight[valid, None]
        keep = ids >= 0
        rows, inverse = np.unique(ids[keep].astype(np.int64), return_inverse=True)
        return Votes(rows, np.bincount(inverse, weights=votes[keep], minlength=len(rows)).astype(np.float64))

    def retrieve(self, recent: Rows, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`votes(recent).best(k)`."""
        return self.votes(recent).best(k)

    def score(self, recent: Rows, rows: Rows) -> NDArray[np.float32]:
        """`votes(recent).of(rows)`."""
        return self.votes(recent).of(rows)


def build(
    users: Rows, items: Rows, time_ms: Rows, n_items: int, now_ms: int, config: CooccurrenceConfig | None = None
) -> Cooccurrence:
    """Neighbours from interactions (any order; `users` and `items` are 0-based rows)."""
    config = config or CooccurrenceConfig()
    order = np.lexsort((items, time_ms, users))
    users, items = users[order].astype(np.int64), items[order].astype(np.int64)
    fresh = 0.5 ** ((now_ms - time_ms[order]) / (config.half_life_days * DAY_MS))
    pairs = _Pairs(n_items)
    for gap in range(1, config.window + 1):
        same = (users[gap:] == users[:-gap]) & (items[gap:] != items[:-gap])
        a, b = items[:-gap][same], items[gap:][same]
        weight = config.gap_decay ** (gap - 1) * fresh[gap:][same]
        pairs.add(np.concatenate([a * n_items + b, b * n_items + a]), np.tile(weight, 2))
    keys, sums = pairs.collected()
    return _nearest(keys // n_items, keys % n_items, sums, n_items, config)


class _Pairs:
    """Sums by pair key: one dense array for a small catalogue (counting), sorted keys for a large one (merging)."""

    def __init__(self, n_items: int) -> None:
        self._dense = np.zeros(n_items * n_items) if n_items <= _DENSE_BELOW else None
        self._keys, self._sums = np.zeros(0, dtype=np.int64), np.zeros(0)

    def add(self, keys: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        if self._dense is not None:
            self._dense += np.bincount(keys, weights=weights, minlength=len(self._dense))
            return
        self._keys, inverse = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        weights = np.concatenate([self._sums, weights])
        self._sums = np.bincount(inverse, weights=weights, minlength=len(self._keys)).astype(np.float64)

    def collected(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if self._dense is None:
            return self._keys, self._sums
        keys = np.flatnonzero(self._dense)
        return keys, self._dense[keys]


def _nearest(
    a: NDArray[np.int64], b: NDArray[np.int64], sums: NDArray[np.float64], n_items: int, config: CooccurrenceConfig
) -> Cooccurrence:
    mass = np.bincount(a, weights=sums, minlength=n_items)
    scores = sums / ((mass[a] + config.shrink) * (mass[b] + config.shrink)) ** config.power
    order = np.lexsort((b, -scores, a))
    a, b, scores = a[order], b[order], scores[order]
    starts = np.searchsorted(a, np.arange(n_items))
    place = np.arange(len(a)) - starts[a]
    keep = place < config.neighbours
    ids = np.full((n_items, config.neighbours), -1, dtype=np.int32)
    out = np.zeros((n_items, config.neighbours), dtype=np.float32)
    ids[a[keep], place[keep]] = b[keep]
    out[a[keep], place[keep]] = scores[keep]
    return Cooccurrence(ids, out)
