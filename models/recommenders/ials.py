"""Implicit matrix factorisation (Hu, Koren and Volinsky 2008), with the regularisation of Rendle et al. 2022.

Alternating least squares: every pair counts `unobserved` as a zero, every touched pair one more as a one. Each
half-step solves all rows at once by conjugate gradients, so the cost is linear in interactions and the catalogue may
be large. A history is folded in: its vector is solved from its items, the newest weighted most, so unknown users are
no exception.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from models.recommenders.base import Floats, Histories, Recommender, Training, lowest_where

_CHUNK = 2_000_000  # interactions whose vectors are held at once
_STEPS = 3
_MOST_RECENT = 100


class ImplicitALS(Recommender):
    """Item vectors float32 [N, dim]."""

    name = "ials"
    default = {"dim": 64, "unobserved": 0.1, "regularise": 0.003, "recency": 0.9}
    space = {
        "dim": (64, 128), "unobserved": (0.01, 0.03, 0.1, 0.3), "regularise": (0.001, 0.003, 0.01, 0.03),
        "recency": (0.6, 0.7, 0.8, 0.9, 1.0),
    }  # fmt: skip
    share = 0.8
    sweeps = 8

    def fit(self, training: Training) -> None:
        touched = training.sequences.matrix(training.n_items)
        touched.sum_duplicates()
        touched.data[:] = 1.0
        rng = np.random.default_rng(training.seed)
        dim = min(self.config["dim"], training.n_items)
        self._items = rng.normal(0, 1 / np.sqrt(dim), (training.n_items, dim)).astype(np.float32)
        users = np.zeros((touched.shape[0], dim), dtype=np.float32)
        by_item = touched.T.tocsr()
        for _ in range(self.sweeps):
            users = self._solve(touched, self._items, users)
            self._items = self._solve(by_item, users, self._items)
        self._gram = self._items.T @ self._items
        self._unknown = training.counts == 0

    def score(self, histories: Histories) -> Floats:
        asked = histories.sequences.matrix(len(self._items), self.config["recency"], _MOST_RECENT)
        start = np.zeros((len(histories), self._items.shape[1]), dtype=np.float32)
        scores = self._solve(asked, self._items, start, steps=2 * _STEPS) @ self._items.T
        return lowest_where(np.asarray(scores, dtype=np.float32), self._unknown)

    def _solve(self, touched: sparse.csr_matrix, fixed: Floats, start: Floats, steps: int = _STEPS) -> Floats:
        """Rows x [R, dim] that minimise sum_touched w (1 - x.f)^2 + unobserved sum_all (x.f)^2 + penalty |x|^2."""
        unobserved = self.config["unobserved"]
        gram = (unobserved * (fixed.T @ fixed)).astype(np.float32)
        many = np.diff(touched.indptr) + unobserved * touched.shape[1]
        penalty = (self.config["regularise"] * many)[:, None].astype(np.float32)
        found = start.copy()
        rest = touched @ fixed - _product(touched, fixed, gram, penalty, found)
        direction, size = rest.copy(), np.einsum("rd,rd->r", rest, rest)
        for _ in range(steps):
            ahead = _product(touched, fixed, gram, penalty, direction)
            length = size / np.maximum(np.einsum("rd,rd->r", direction, ahead), 1e-12)
            found += length[:, None] * direction
            rest -= length[:, None] * ahead
            newer = np.einsum("rd,rd->r", rest, rest)
            direction = rest + (newer / np.maximum(size, 1e-12))[:, None] * direction
            size = newer
        return np.asarray(found, dtype=np.float32)


def _product(touched: sparse.csr_matrix, fixed: Floats, gram: Floats, penalty: Floats, rows: Floats) -> Floats:
    """The system's matrix of every row times that row, without building any of the matrices."""
    owner = np.repeat(np.arange(touched.shape[0]), np.diff(touched.indptr))
    along = np.empty(touched.nnz, dtype=np.float32)
    for start in range(0, touched.nnz, _CHUNK):
        part = slice(start, start + _CHUNK)
        along[part] = np.einsum("ed,ed->e", fixed[touched.indices[part]], rows[owner[part]])
    weighted = sparse.csr_matrix((touched.data * along, touched.indices, touched.indptr), shape=touched.shape)
    return np.asarray(weighted @ fixed + rows @ gram + penalty * rows, dtype=np.float32)
