"""Item-to-item co-occurrence that knows which item came first, asked with the newest items weighted most.

A pair `gap` places apart in one sequence counts gap_decay^(gap-1), times `backward` when the asked item came second,
over (length of the sequence)^activity; the sum is divided by (mass of the asked)^source x (mass of the other)^target
after shrinkage. A history's score is the sum of its items' rows, the newest first by `recency`. Needs no training,
and beats many networks on short sequences.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from models.recommenders.base import Floats, Histories, Recommender, Sequences, Training

_MOST_RECENT = 50
_MOST_PAIRS = 60_000_000  # 12 bytes each, twice: what the memory of a long history allows


class Transitions(Recommender):
    """Sparse item x item weights."""

    name = "co-occurrence"
    default = {
        "window": 10, "gap_decay": 0.8, "backward": 0.6, "activity": 0.3, "source": 0.5, "target": 0.4, "shrink": 3.0,
        "recency": 0.7, "popular": 0.03,
    }  # fmt: skip
    space = {
        "window": (1, 3, 10, 30), "gap_decay": (0.5, 0.8, 0.9, 1.0), "backward": (0.0, 0.3, 0.6, 0.8, 1.0),
        "activity": (0.0, 0.3, 0.6, 1.0), "source": (0.2, 0.5, 0.8, 1.0), "target": (0.0, 0.2, 0.3, 0.4, 0.5, 0.7),
        "shrink": (0.0, 1.0, 3.0, 10.0, 30.0), "recency": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        "popular": (0.0, 0.01, 0.03, 0.1),
    }  # fmt: skip
    share = 1.2

    def fit(self, training: Training) -> None:
        config, n_items = self.config, training.n_items
        sequences = training.sequences.newest(_MOST_PAIRS // config["window"])
        pairs = _pairs(sequences, n_items, config["window"], config["gap_decay"], config["activity"])
        pairs = (pairs + config["backward"] * pairs.T).tocsr()
        shrink = config["shrink"] + 1e-9
        asked = (np.asarray(pairs.sum(axis=1)).ravel() + shrink) ** -config["source"]
        other = (np.asarray(pairs.sum(axis=0)).ravel() + shrink) ** -config["target"]
        self._weights = (sparse.diags(asked) @ pairs @ sparse.diags(other)).tocsr().astype(np.float32)
        top = float(self._weights.max()) if self._weights.nnz else 1.0
        popular = np.log1p(training.counts)
        self._popular = (config["popular"] * top * popular / max(popular.max(initial=0.0), 1.0)).astype(np.float32)

    def score(self, histories: Histories) -> Floats:
        asked = histories.sequences.matrix(self._weights.shape[0], self.config["recency"], _MOST_RECENT)
        return np.asarray((asked @ self._weights).toarray() + self._popular, dtype=np.float32)


def _pairs(sequences: Sequences, n_items: int, window: int, gap_decay: float, activity: float) -> sparse.csr_matrix:
    """Weights [earlier item, later item] of all pairs at most `window` places apart."""
    items, owner = sequences.items, sequences.owner
    length = np.maximum(sequences.lengths, 1).astype(np.float64) ** -activity
    total = sparse.csr_matrix((n_items, n_items))
    for gap in range(1, min(window, int(sequences.lengths.max(initial=1)) - 1) + 1):
        same = (owner[gap:] == owner[:-gap]) & (items[gap:] != items[:-gap])
        weight = gap_decay ** (gap - 1) * length[owner[gap:][same]]
        total = total + sparse.csr_matrix((weight, (items[:-gap][same], items[gap:][same])), shape=(n_items, n_items))
    return total
