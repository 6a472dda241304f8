"""From scores to probabilities: Platt's sigmoid, isotonic regression, and how well calibrated probabilities are.

Platt 1999 (with his smoothed targets); Zadrozny and Elkan 2002 for isotonic regression by pooling adjacent violators.
Pure numpy: a calibration must be readable wherever a baseline is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEPS: Final = 50
_KNOTS: Final = 64


@dataclass(frozen=True)
class Platt:
    """P(y = 1 | x) = sigmoid(weights . x + bias) for one or more inputs."""

    weights: tuple[float, ...]
    bias: float

    @classmethod
    def fit(cls, x: NDArray[Any], y: NDArray[Any], *, l2: float = 0.0) -> Platt:
        """Maximum likelihood by Newton's method on Platt's smoothed targets. `x` [n] or [n, d], `y` [n] in {0, 1}.

        `l2` shrinks the weights of the standardised inputs. Raises ValueError unless both classes are there.
        """
        x = _two_dimensional(x)
        y = np.asarray(y, bool)
        hits, misses = int(y.sum()), int((~y).sum())
        if not hits or not misses:
            raise ValueError("a calibration needs rows of both classes")
        middle, scale = x.mean(0), np.maximum(x.std(0), 1e-12)
        design = np.column_stack([(x - middle) / scale, np.ones(len(x))])
        target = np.where(y, (hits + 1) / (hits + 2), 1 / (misses + 2))
        ridge = np.diag([l2 + 1e-9] * x.shape[1] + [1e-9])
        beta = np.zeros(design.shape[1])
        beta[-1] = np.log((hits + 1) / (misses + 1))
        for _ in range(_STEPS):
            p = sigmoid(design @ beta)
            gradient = design.T @ (p - target) + ridge @ beta
            curvature = (design * (p * (1 - p))[:, None]).T @ design + ridge
            step = np.linalg.solve(curvature, gradient)
            beta -= np.clip(step, -4, 4)
            if np.abs(step).max() < 1e-10:
                break
        weights = beta[:-1] / scale
        return cls(tuple(weights.tolist()), float(beta[-1] - weights @ middle))

    def predict(self, x: NDArray[Any]) -> Floats:
        """Probabilities [n]."""
        return sigmoid(_two_dimensional(x) @ np.asarray(self.weights) + self.bias)


@dataclass(frozen=True)
class Isotonic:
    """A non-decreasing step function with straight lines between its knots; flat beyond its ends."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    @classmethod
    def fit(cls, x: NDArray[Any], y: NDArray[Any], *, knots: int | None = None) -> Isotonic:
        """Least squares under monotonicity by pooling adjacent violators. `x` [n], `y` [n]; equal x are one point.

        `knots` keeps at most so many knots. Raises ValueError without rows.
        """
        if not len(x):
            raise ValueError("isotonic regression of no rows")
        values, group = np.unique(np.asarray(x, np.float64), return_inverse=True)
        weight = np.bincount(group).astype(np.float64)
        mean = np.bincount(group, np.asarray(y, np.float64)) / weight
        level, size = _pool(mean, weight)
        fitted = np.repeat(level, size)
        ends = np.cumsum(size)
        keep = np.unique(np.concatenate([ends - size, ends - 1]))  # both ends of every flat piece
        if knots is not None and len(keep) > knots:
            keep = keep[np.unique(np.linspace(0, len(keep) - 1, knots).round().astype(int))]
        return cls(tuple(values[keep].tolist()), tuple(fitted[keep].tolist()))

    def predict(self, x: NDArray[Any]) -> Floats:
        """Fitted values [n]."""
        return np.interp(np.asarray(x, np.float64), self.x, self.y)


@dataclass(frozen=True)
class ClickModel:
    """P(click) of a shown product from the ranker's score and the place it was shown at.

    A sigmoid of score and log place, then isotonic regression of its outcome: the first knows about places, the second
    does not believe in sigmoids. Without places the score alone is used.
    """

    platt: Platt
    isotonic: Isotonic
    rows: int
    clicks: int

    @classmethod
    def fit(cls, scores: NDArray[Any], clicked: NDArray[Any], positions: NDArray[Any] | None = None) -> ClickModel:
        """Raises ValueError unless there are rows with and without a click."""
        clicked = np.asarray(clicked, bool)
        platt = Platt.fit(_inputs(scores, positions), clicked)
        rough = platt.predict(_inputs(scores, positions))
        isotonic = Isotonic.fit(rough, clicked, knots=_KNOTS)
        return cls(platt, isotonic, len(clicked), int(clicked.sum()))

    @property
    def uses_positions(self) -> bool:
        return len(self.platt.weights) == 2

    def predict(self, scores: NDArray[Any], positions: NDArray[Any] | None = None) -> Floats:
        """P(click) [n]. Raises ValueError if places are needed and not given."""
        if self.uses_positions and positions is None:
            raise ValueError("this click model was fitted with places: give the places of the rows too")
        return self.isotonic.predict(self.platt.predict(_inputs(scores, positions if self.uses_positions else None)))

    def as_dict(self) -> dict[str, Any]:
        return {
            "weights": list(self.platt.weights), "bias": self.platt.bias, "rows": self.rows, "clicks": self.clicks,
            "x": [float(f"{v:.8g}") for v in self.isotonic.x], "y": [float(f"{v:.8g}") for v in self.isotonic.y],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClickModel:
        platt = Platt(tuple(data["weights"]), data["bias"])
        return cls(platt, Isotonic(tuple(data["x"]), tuple(data["y"])), data["rows"], data["clicks"])


def brier(p: NDArray[Any], y: NDArray[Any]) -> float:
    """Mean squared error of probabilities [n] against outcomes [n] in {0, 1}; NaN without rows."""
    return float(np.mean((np.asarray(p, np.float64) - np.asarray(y, np.float64)) ** 2)) if len(p) else float("nan")


def expected_calibration_error(p: NDArray[Any], y: NDArray[Any], bins: int = 10) -> float:
    """Mean distance of promise and outcome over bins of equal size (Naeini et al. 2015); NaN without rows."""
    if not len(p):
        return float("nan")
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
    return float(sum(len(part) * abs(p[part].mean() - y[part].mean()) for part in parts) / len(p))


def sigmoid(x: NDArray[Any]) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float64)


def _two_dimensional(x: NDArray[Any]) -> Floats:
    x = np.asarray(x, np.float64)
    return x[:, None] if x.ndim == 1 else x


def _inputs(scores: NDArray[Any], positions: NDArray[Any] | None) -> Floats:
    scores = np.asarray(scores, np.float64)
    return scores[:, None] if positions is None else np.column_stack([scores, np.log(np.maximum(positions, 1))])


def _pool(mean: Floats, weight: Floats) -> tuple[list[float], list[int]]:
    """Pool adjacent violators: levels and sizes (points) of the flat pieces."""
    level: list[float] = []
    mass: list[float] = []
    size: list[int] = []
    for m, w in zip(mean.tolist(), weight.tolist(), strict=True):
        level.append(m)
        mass.append(w)
        size.append(1)
        while len(level) > 1 and level[-2] >= level[-1]:
            m1, w1, s1 = level.pop(), mass.pop(), size.pop()
            level[-1] = (level[-1] * mass[-1] + m1 * w1) / (mass[-1] + w1)
            mass[-1] += w1
            size[-1] += s1
    return level, size
