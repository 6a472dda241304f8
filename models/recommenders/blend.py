"""The blend: a weighted sum of several models' scores, its weights learned from questions whose answers are known.

Each model gives two features per item: its z-score within the row, tamed by a logarithm, and the logarithm of its
rank. The weights are those of a conditional logit (McFadden 1974) over the items that any model puts near the top,
none below zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from models.recommenders.base import Floats, Ints

TOP = 100
_PENALTY = 1e-3


@dataclass(frozen=True)
class Blend:
    """Weights float64 [2 x models]: those of the z-scores, then those of the ranks."""

    weights: NDArray[np.float64]

    def combine(self, scores: Sequence[Floats]) -> Floats:
        """One score per item from the models' [B, N]."""
        total = np.zeros_like(scores[0], dtype=np.float32)
        for model, mine in enumerate(scores):
            by_score, by_rank = self.weights[model], self.weights[len(scores) + model]
            if by_score:
                total += np.float32(by_score) * tamed(mine)
            if by_rank:
                total += np.float32(by_rank) * nearness(mine)
        return total


def uniform(models: int) -> Blend:
    """Every model's z-score counts alike."""
    return Blend(np.concatenate([np.ones(models), np.zeros(models)]))


def tamed(scores: Floats) -> Floats:
    """Signed log(1 + |z|) of the scores within each row, so that one model's outliers do not decide alone."""
    spread = np.maximum(scores.std(axis=1, keepdims=True), 1e-9)
    z = (scores - scores.mean(axis=1, keepdims=True)) / spread
    return np.asarray(np.sign(z) * np.log1p(np.abs(z)), dtype=np.float32)


def nearness(scores: Floats) -> Floats:
    """-log of the rank within each row, the same for all behind TOP. Equal scores share the worst rank of theirs."""
    top = top_columns(scores, TOP)
    rows = np.arange(len(scores))[:, None]
    best = scores[rows, top]
    place = np.arange(1, top.shape[1] + 1, dtype=np.float32)[None, :].repeat(len(scores), axis=0)
    for column in range(top.shape[1] - 2, -1, -1):
        tied = best[:, column] == best[:, column + 1]
        place[tied, column] = place[tied, column + 1]
    found = np.full(scores.shape, -np.log(top.shape[1] + 1.0), dtype=np.float32)
    found[rows, top] = -np.log(place)
    return found


def top_columns(scores: Floats, k: int) -> Ints:
    """The `k` best columns of each row [B, k], best first; equal scores in order of columns."""
    k = min(k, scores.shape[1])
    kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    kept.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, kept, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(kept, order, axis=1), dtype=np.int64)


@dataclass
class Examples:
    """Candidates of questions: `features` of each, the question it belongs to, and whether it is relevant."""

    features: list[NDArray[np.float32]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    relevant: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, scores: Sequence[Floats], relevant: Sequence[Ints]) -> None:
        """A batch: the models' scores [B, N], each row's relevant items. Rows without a right candidate are left."""
        views = [tamed(one) for one in scores] + [nearness(one) for one in scores]
        tops = [top_columns(one, TOP) for one in scores]
        for row, wanted in enumerate(relevant):
            items = np.unique(np.concatenate([top[row] for top in tops]))
            right = np.isin(items, wanted)
            if right.any():
                self.features.append(np.stack([view[row, items] for view in views], axis=1))
                self.sizes.append(len(items))
                self.relevant.append(right)


def learn(examples: Examples, models: int) -> Blend:
    """The weights under which the relevant candidates are likeliest. Without examples every model counts alike."""
    if not examples.sizes:
        return uniform(models)
    features = np.concatenate(examples.features).astype(np.float32)
    right = np.concatenate(examples.relevant).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(examples.sizes)[:-1]])
    sizes = np.array(examples.sizes)
    right /= np.repeat(np.add.reduceat(right, starts), sizes)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = (features @ weights.astype(np.float32)).astype(np.float64)
        logits -= np.repeat(np.maximum.reduceat(logits, starts), sizes)
        chance = np.exp(logits)
        total = np.add.reduceat(chance, starts)
        chance /= np.repeat(total, sizes)
        likely = float(np.sum(right * logits) - np.sum(np.log(total))) / len(starts)
        slope = features.T @ (chance - right).astype(np.float32) / len(starts)
        return -likely + _PENALTY * float(weights @ weights), slope + 2 * _PENALTY * weights

    start = np.full(features.shape[1], 1.0 / models)
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start), options={"maxiter": 200}
    )
    return Blend(np.asarray(found.x, dtype=np.float64))
