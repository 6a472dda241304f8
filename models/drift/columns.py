"""One column, summarised: enough to compare two samples of it without keeping either.

A summary is a few dozen numbers (JSON-able), whatever the sample's size: quantiles, or every value with its share when
there are few of them. The order of the sample never matters. NaN, infinities and None count as null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GRID: Final = 64
"""Steps of the quantile grid: the distribution function is known to 1/64."""
FEW_VALUES: Final = 24
"""A column with at most so many different values keeps them all."""
MOST_CATEGORIES: Final = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """What is known of a sample of one column.

    `units` is how many independent observations the sample stands for (requests, say, when each brought 20 rows);
    `quantiles` are the values at shares 0, 1/m .. 1 of the non-null rows (the two ends only, where `values` are kept);
    `values` and `shares`, when not empty, are all different values (numbers ascending, or texts, commonest first) and
    their shares of the non-null rows.
    """

    name: str
    rows: int
    units: int
    null_share: float
    mean: float = 0.0
    std: float = 0.0
    quantiles: tuple[float, ...] = ()
    values: tuple[float | str, ...] = ()
    shares: tuple[float, ...] = ()
    categorical: bool = False

    @property
    def filled(self) -> bool:
        """Whether there is any value that is not null."""
        return bool(self.quantiles or self.values)

    @property
    def present(self) -> float:
        """Independent observations that are not null."""
        return self.units * (1.0 - self.null_share)

    @property
    def low(self) -> float:
        return self.quantiles[0] if self.quantiles else float("nan")

    @property
    def high(self) -> float:
        return self.quantiles[-1] if self.quantiles else float("nan")

    def cdf(self, x: Floats, *, below: bool = False) -> Floats:
        """P(X <= x), or P(X < x) with `below`, of the non-null rows. ValueError for a column of texts."""
        if self.categorical:
            raise ValueError(f"column {self.name!r} holds categories: they have no order")
        x = np.asarray(x, np.float64)
        if self.values:
            cumulative = np.concatenate([[0.0], np.cumsum(self.shares)])
            return cumulative[np.searchsorted(self._numbers, x, side="left" if below else "right")]
        q, p = np.asarray(self.quantiles), np.linspace(0, 1, len(self.quantiles))
        after = np.searchsorted(q, x, side="left" if below else "right")
        i, j = np.clip(after - 1, 0, len(q) - 1), np.clip(after, 0, len(q) - 1)
        gap = np.where(q[j] > q[i], q[j] - q[i], 1.0)
        inside = p[i] + (p[j] - p[i]) * np.clip((x - q[i]) / gap, 0, 1)
        return np.where(after == 0, 0.0, np.where(after == len(q), 1.0, inside))

    def knots(self) -> Floats:
        """Where the distribution function bends."""
        return self._numbers if self.values else np.unique(np.asarray(self.quantiles))

    def draw_quantiles(self, parts: int) -> Floats:
        """The `parts` + 1 values that divide the non-null rows into equal parts."""
        at = np.linspace(0, 1, parts + 1)
        if self.values:
            picked = np.searchsorted(np.cumsum(self.shares), at - 1e-9)
            return self._numbers[np.minimum(picked, len(self.values) - 1)]
        return np.interp(at, np.linspace(0, 1, len(self.quantiles)), self.quantiles)

    def draw(self, n: int) -> list[Any]:
        """`n` values spread as the column's non-null rows are; for pictures and reports, not for tests."""
        if not self.filled:
            return []
        at = (np.arange(n) + 0.5) / n
        if self.values:
            picked = np.searchsorted(np.cumsum(self.shares), at)
            return [self.values[min(int(i), len(self.values) - 1)] for i in picked]
        return [float(v) for v in np.interp(at, np.linspace(0, 1, len(self.quantiles)), self.quantiles)]

    @property
    def _numbers(self) -> Floats:
        return np.asarray(self.values, np.float64)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; what is empty is left out. Numbers keep six significant digits."""
        rounded = {key: _six(value) for key, value in asdict(self).items()}
        return {key: value for key, value in rounded.items() if value != [] and value is not False}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Column:
        """Inverse of `as_dict`. Raises TypeError for keys it does not know."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**given)


def numeric(name: str, sample: Sequence[Any] | NDArray[Any], *, units: int | None = None, grid: int = GRID) -> Column:
    """The summary of a sample of numbers [n]."""
    raw = np.asarray(sample, np.float64).ravel()
    good = raw[np.isfinite(raw)]
    rows, units = len(raw), len(raw) if units is None else units
    null_share = 1.0 - len(good) / rows if rows else 0.0
    if not len(good):
        return Column(name, rows, units, null_share)
    distinct, counts = np.unique(good, return_counts=True)
    few = len(distinct) <= FEW_VALUES
    quantiles = np.quantile(good, np.linspace(0, 1, grid + 1), method="inverted_cdf")
    return Column(
        name, rows, units, null_share, float(good.mean()), float(good.std()),
        (float(distinct[0]), float(distinct[-1])) if few else tuple(quantiles.tolist()),
        tuple(distinct.tolist()) if few else (), tuple((counts / len(good)).tolist()) if few else (),
    )  # fmt: skip


def category(name: str, sample: Sequence[Any], *, units: int | None = None) -> Column:
    """The summary of a sample of texts [n]; the rarest beyond MOST_CATEGORIES are counted together as `other`."""
    given = [str(v) for v in sample if v is not None and v == v and str(v) != ""]
    rows, units = len(sample), len(sample) if units is None else units
    null_share = 1.0 - len(given) / rows if rows else 0.0
    if not given:
        return Column(name, rows, units, null_share, categorical=True)
    names, counts = np.unique(np.asarray(given), return_counts=True)
    order = np.lexsort((names, -counts))
    kept, rest = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    values, numbers = names[kept].tolist(), counts[kept].tolist()
    if len(rest):
        values, numbers = [*values, "other"], [*numbers, int(counts[rest].sum())]
    shares = tuple(number / len(given) for number in numbers)
    return Column(name, rows, units, null_share, values=tuple(values), shares=shares, categorical=True)


def _six(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_six(v) for v in value] if isinstance(value, tuple) else value
