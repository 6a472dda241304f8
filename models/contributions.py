"""What each feature added to a score: Shapley values (Lundberg and Lee 2017) of a ranker in the form that serves.

Trees: exact, by TreeSHAP (Lundberg et al. 2018). A student network: from sampled orders of the features, each with its
reverse (Castro et al. 2009; antithetic pairs as Mitchell et al. 2022); the sum is exact, what one feature got of it is
an estimate. Its other end is a row of which nothing is known: the network takes what is missing as the average.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Form = Literal["trees", "student"]
ORDERS: Final = 8  # of the features; each is also taken in reverse
_SEED: Final = 7


class Contributions(NamedTuple):
    """`by_feature` [n, F] adds up with `base` to the score of each row."""

    by_feature: NDArray[np.float64]
    base: float


class Explained(Protocol):
    """A ranker that can say why."""

    def of(self, rows: Rows) -> Contributions:
        """What lifted and lowered each of `rows` [n, F], against the average row of training."""


class Trees:
    """A ranker's trees, kept open."""

    def __init__(self, model: Path) -> None:
        """`model` is LightGBM's text. Raises ValueError if it is not."""
        try:
            self._booster: Any = lightgbm.Booster(model_file=str(model))
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"{model}: not a LightGBM model: {error}") from None

    def of(self, rows: Rows) -> Contributions:
        """Of each of `rows` [n, F]."""
        values = np.asarray(self._booster.predict(rows, pred_contrib=True, num_threads=1), np.float64)
        return Contributions(values[:, :-1], float(values[0, -1]) if len(values) else 0.0)


class Network:
    """A ranker as a function of rows [n, F] -> scores [n]."""

    def __init__(self, score: Callable[[Rows], NDArray[Any]]) -> None:
        self._score = score

    def of(self, rows: Rows) -> Contributions:
        """Of each of `rows` [n, F]; the same rows give the same values. Runs 2 n x F x ORDERS rows."""
        n, features = rows.shape
        unknown = np.full((1, features), np.nan, np.float32)
        base, rng, added = float(self._score(unknown)[0]), np.random.default_rng(_SEED), np.zeros((n, features))
        for _ in range(ORDERS):
            order = rng.permutation(features)
            for one in (order, order[::-1]):
                added += self._along(rows, one, base)
        return Contributions(added / (2 * ORDERS), base)

    def _along(self, rows: Rows, order: NDArray[np.int64], base: float) -> NDArray[np.float64]:
        """What each feature adds [n, F] when the features become known one after another."""
        n, features = rows.shape
        place = np.argsort(order)
        known = place[None, :] <= np.arange(features)[:, None]  # [step, feature]
        steps = np.where(known, rows[:, None, :], np.float32(np.nan)).reshape(n * features, features)
        scores = np.asarray(self._score(steps), np.float64).reshape(n, features)
        return np.diff(scores, axis=1, prepend=base)[:, place]
