"""The linear autoencoder: which items a history implies, as one closed-form matrix (EASE, Steck 2019).

Two least-squares problems share the matrix: every item of a sequence from its others (EASE), and the later items from
the earlier ones, each pair weighted by how near it is (SLIST, Choi et al. 2021); `transition` says how much the
second counts. An item never votes for itself. Memory grows with the square of the items and time with the cube,
so a large catalogue is cut to its most popular items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from models.recommenders.base import Floats, Histories, Recommender, Sequences, Training, lowest_where

_COPIES = 3.2  # float32 matrices of items x items that are alive while one is fitted and an older one is kept
_MOST_ITEMS = 10_000  # half a minute on two cores
_MOST_RECENT = 50
_MOST_PREFIXES = 2_000_000


def most_items(memory_gib: float) -> int:
    """How many items its matrices may have: what time and two thirds of the memory allow."""
    return min(int((memory_gib * 2 / 3 * 2**30 / 4 / _COPIES) ** 0.5), _MOST_ITEMS)


class LinearAutoencoder(Recommender):
    """Dense weights float32 [M, M] between the M most popular items; the others stay last."""

    name = "ease"
    default = {"regularise": 10.0, "transition": 0.5, "gap_decay": 0.8, "recency": 0.7, "target": 0.3}
    space = {
        "regularise": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0), "transition": (0.0, 0.3, 0.5, 0.8, 1.0),
        "gap_decay": (0.5, 0.8, 1.0), "recency": (0.3, 0.5, 0.7, 0.8, 0.9, 1.0), "target": (0.0, 0.15, 0.3, 0.5),
    }  # fmt: skip
    share = 2.5
    tuned_on = 3000

    def fit(self, training: Training) -> None:
        config, counts = self.config, training.counts
        self._kept = np.sort(np.argsort(-counts, kind="stable")[: most_items(training.memory_gib)])
        self._place = np.full(training.n_items, -1, dtype=np.int64)
        self._place[self._kept] = np.arange(len(self._kept))
        many, sequences = len(self._kept), self._known(training.sequences)
        gram, wanted = _normal_equations(sequences, many, config["transition"], config["gap_decay"])
        gram.flat[:: many + 1] += config["regularise"]
        self._weights = _without_self(gram, wanted)
        # Least squares favours popular items; how much of that is taken back is tuned like the rest.
        self._weights *= ((counts[self._kept] + 1.0) ** -config["target"]).astype(np.float32)[None, :]
        self._unknown = (counts == 0) | (self._place < 0)

    def score(self, histories: Histories) -> Floats:
        known = self._known(histories.sequences)
        asked = known.matrix(len(self._kept), self.config["recency"], _MOST_RECENT)
        scores = np.zeros((len(histories), len(self._place)), dtype=np.float32)
        scores[:, self._kept] = asked @ self._weights
        return lowest_where(scores, self._unknown)

    def _known(self, sequences: Sequences) -> Sequences:
        left = sequences.where(self._place[sequences.items] >= 0)
        return replace(left, items=self._place[left.items])


def _normal_equations(
    sequences: Sequences, n_items: int, transition: float, gap_decay: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Left and right side, float32 [N, N] in Fortran's order: (1-t) x whole sequences + t x (earlier -> later)."""
    left = np.zeros((n_items, n_items), dtype=np.float32, order="F")
    if transition < 1:
        together = sequences.matrix(n_items)
        _add_product(left, together, together, 1 - transition)
    right = left.copy(order="F")
    if transition > 0:
        past, future = _prefixes(sequences.newest(_MOST_PREFIXES), n_items, gap_decay)
        _add_product(left, past, past, transition)
        _add_product(right, past, future, transition)
    return left, right


def _add_product(total: NDArray[Any], a: sparse.csr_matrix, b: sparse.csr_matrix, weight: float) -> None:
    """total += weight x a'b, by blocks of columns, so that no second matrix of that size is held."""
    rows, columns = (weight * a.T).tocsr(), b.tocsc()
    for start in range(0, total.shape[1], 1024):
        part = slice(start, start + 1024)
        total[:, part] += (rows @ columns[:, part]).toarray()


def _prefixes(sequences: Sequences, n_items: int, decay: float) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Of each entry but the first: the decayed past [P, N] and the entry itself [P, N]; at most _MOST_RECENT."""
    items, owner = sequences.items, sequences.owner
    place = np.arange(len(items)) - sequences.starts[owner]
    targets = np.flatnonzero((place > 0) & (sequences.from_end < _MOST_RECENT))
    number = np.full(len(items), -1, dtype=np.int64)
    number[targets] = np.arange(len(targets))
    rows, columns, weights = [], [], []
    for gap in range(1, min(_MOST_RECENT, int(sequences.lengths.max(initial=1)) - 1) + 1):
        weight = decay ** (gap - 1)
        if weight < 0.01:
            break
        later = targets[place[targets] >= gap]
        rows.append(number[later])
        columns.append(items[later - gap])
        weights.append(np.full(len(later), weight, dtype=np.float32))
    shape = (len(targets), n_items)
    if not rows:
        return sparse.csr_matrix(shape, dtype=np.float32), sparse.csr_matrix(shape, dtype=np.float32)
    at = (np.concatenate(rows), np.concatenate(columns))
    past = sparse.csr_matrix((np.concatenate(weights), at), shape=shape)
    ones = np.ones(len(targets), dtype=np.float32)
    return past, sparse.csr_matrix((ones, (np.arange(len(targets)), items[targets])), shape=shape)


def _without_self(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float32]:
    """The least-squares solution of left @ B = right with a zero diagonal; overwrites both."""
    factor, _ = linalg.cho_factor(left, lower=True, overwrite_a=True, check_finite=False)
    solved = linalg.cho_solve((factor, True), right, overwrite_b=True, check_finite=False)
    inverse, info = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if info:
        raise np.linalg.LinAlgError("the matrix of the linear autoencoder is singular; regularise more")
    n = len(solved)
    scale = (solved.diagonal() / inverse.diagonal()).astype(np.float32)
    for start in range(0, n, 1024):  # P is symmetric and only its lower triangle is filled: column j of P by parts
        stop = min(start + 1024, n)
        block = np.empty((n, stop - start), dtype=np.float32)
        block[stop:] = inverse[stop:, start:stop]
        block[:start] = inverse[start:stop, :start].T
        square = np.tril(inverse[start:stop, start:stop])
        block[start:stop] = square + np.tril(square, -1).T
        solved[:, start:stop] -= block * scale[start:stop]
    return _in_rows(solved)


def _in_rows(square: NDArray[Any]) -> NDArray[np.float32]:
    """A matrix in Fortran's order as the same matrix in C's, without a second one: transposed in place by blocks."""
    turned, size = square.T, 1024
    for a in range(0, len(turned), size):
        for b in range(a, len(turned), size):
            upper, lower = turned[a : a + size, b : b + size], turned[b : b + size, a : a + size]
            kept = upper.copy()
            upper[:] = lower.T.copy()
            lower[:] = kept.T
    return turned
