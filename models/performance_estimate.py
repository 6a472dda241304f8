"""Quality before the labels are in: confidence-based performance estimation (CBPE), proxies, and their truing up.

CBPE (as in NannyML): if probabilities are calibrated, a model's own probabilities tell what its metrics will be; here
the expected click rate, the expected log loss and the expected share of feeds with a click. It holds while inputs move
(covariate shift) and fails, by construction, when the meaning of the inputs moves (concept drift): the gap that is left
once labels come is exactly that, and `true_up` measures it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import ClickModel

_FLOOR = 1e-6


@dataclass(frozen=True)
class Performance:
    """Metrics of shown feeds, estimated or realised. `click_rate` per shown row; NDCG of the shown order."""

    rows: int
    click_rate: float
    log_loss: float
    feeds_with_click: float
    ndcg: float

    def as_dict(self) -> dict[str, Any]:
        return {key: float(f"{value:.6g}") if value == value else None for key, value in asdict(self).items()}


@dataclass(frozen=True)
class TruedUp:
    """Estimate and outcome of the same feeds; `factor` is realised over estimated click rate, `error` its deviation."""

    estimated: Performance
    realised: Performance
    factor: float
    error: float

    def correct(self, estimate: float) -> float:
        """A later estimate of the click rate, corrected by what the last labels said."""
        return estimate * self.factor


def estimate(
    model: ClickModel, scores: NDArray[Any], positions: NDArray[Any] | None, request: NDArray[np.integer[Any]]
) -> Performance:
    """What the shown rows [n] should bring, without labels. `request` [n] numbers the feeds 0.. in order."""
    return expected(model.predict(scores, positions), request, positions)


def expected(
    chance: NDArray[Any], request: NDArray[np.integer[Any]], positions: NDArray[Any] | None = None
) -> Performance:
    """As `estimate`, from chances of a click [n] that are known."""
    n = len(chance)
    if not n:
        return _nothing()
    p = np.clip(np.asarray(chance, np.float64), _FLOOR, 1 - _FLOOR)
    none = np.exp(np.bincount(request, np.log1p(-p)))
    loss = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    return Performance(n, float(p.mean()), float(loss.mean()), float(1 - none.mean()), _ndcg(p, request, positions))


def realised(
    model: ClickModel, scores: NDArray[Any], positions: NDArray[Any] | None, request: NDArray[np.integer[Any]],
    clicked: NDArray[Any],
) -> Performance:  # fmt: skip
    """What the shown rows brought, once labels are in; the log loss is the model's on these labels."""
    n = len(scores)
    if not n:
        return _nothing()
    p = np.clip(model.predict(scores, positions), _FLOOR, 1 - _FLOOR)
    hit = np.asarray(clicked, np.float64)
    loss = -(hit * np.log(p) + (1 - hit) * np.log(1 - p))
    some = np.bincount(request, hit) > 0
    return Performance(n, float(hit.mean()), float(loss.mean()), float(some.mean()), _ndcg(hit, request, positions))


def true_up(estimated: Performance, found: Performance, requests: int) -> TruedUp:
    """The factor between promise and outcome; its error treats each of `requests` feeds as one observation."""
    factor = found.click_rate / max(estimated.click_rate, _FLOOR)
    clicks = max(found.click_rate * found.rows, 1.0)
    bunched = max(1.0, clicks / max(requests, 1))
    return TruedUp(estimated, found, float(factor), float(factor * np.sqrt(bunched / clicks)))


def _ndcg(gain: NDArray[Any], request: NDArray[np.integer[Any]], positions: NDArray[Any] | None) -> float:
    """Mean over feeds of sum(gain / log2(1 + place)) over that of the best order. Feeds without gain do not count.

    With expected gains this is the ratio of expectations, not the expectation of the ratio.
    """
    place = _places(request) if positions is None else np.asarray(positions, np.float64)
    best = np.empty(len(gain))
    order = np.lexsort((-gain, request))
    best[order] = _places(request[order])
    feeds = np.bincount(request, gain / np.log2(1 + place))
    ideal = np.bincount(request, gain / np.log2(1 + best))
    good = ideal > 0
    return float(np.mean(feeds[good] / ideal[good])) if good.any() else float("nan")


def _places(request: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """1-based place of each row within its request; rows are in order of request."""
    size = np.bincount(request)
    return np.asarray(np.arange(len(request)) - (np.cumsum(size) - size)[request] + 1, np.float64)


def _nothing() -> Performance:
    nan = float("nan")
    return Performance(0, nan, nan, nan, nan)
