"""A baseline: what a model saw, said and met in a window, as a compact document that later windows are compared with.

    summarise(features, names, scores, labels, categories) -> JSON document; Baseline.from_dict(document) reads it.

The rows must be those that were shown (for training data: the best `SHOWN` of each request, see `shown_rows`), because
live windows hold shown rows only: all candidates and the shown ones differ by selection, and that is no drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.calibration import ClickModel
from models.drift.base import Rate
from models.drift.columns import GRID, Column, category, numeric

VERSION: Final = 1
SHOWN: Final = 20
LEAST_CLICKS: Final = 30
"""Fewer clicks than this do not make a calibration."""


@dataclass(frozen=True)
class Slice:
    """A part of the requests: their scores, and clicks per shown product."""

    requests: int
    scores: Column
    clicks: Rate

    def as_dict(self) -> dict[str, Any]:
        return {"requests": self.requests, "scores": self.scores.as_dict(), "clicks": asdict(self.clicks)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Slice:
        return cls(data["requests"], Column.from_dict(data["scores"]), Rate(**data["clicks"]))


@dataclass(frozen=True)
class Baseline:
    """A window, summarised: `columns` and `categories` by name, `scores`, click rates, and the calibration, if any."""

    rows: int
    requests: int
    columns: Mapping[str, Column]
    scores: Column
    categories: Mapping[str, Column] = field(default_factory=dict)
    label_shares: tuple[float, ...] = ()
    """Share of rows whose label is at least 1, at least 2, ...; empty without labels."""
    click_model: ClickModel | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the maker notes: source, model version, time range."""
    seconds: float = 0.0
    """How long the window was; 0 where volume means nothing, as in training data."""
    asked: int = 0
    """Requests in that time, sampled or not."""
    clicks: Rate | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """Events of each kind in that time."""
    slices: Mapping[str, Slice] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION, "rows": self.rows, "requests": self.requests,
            "columns": [column.as_dict() for column in self.columns.values()], "scores": self.scores.as_dict(),
            "categories": [column.as_dict() for column in self.categories.values()],
            "label_shares": [float(f"{share:.6g}") for share in self.label_shares],
            "click_model": None if self.click_model is None else self.click_model.as_dict(), "meta": dict(self.meta),
            "seconds": self.seconds, "asked": self.asked,
            "clicks": None if self.clicks is None else asdict(self.clicks),
            "counts": dict(self.counts), "slices": {name: part.as_dict() for name, part in self.slices.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """Raises ValueError for another version, KeyError or TypeError for what is no baseline."""
        if data["version"] != VERSION:
            raise ValueError(f"baseline of version {data['version']}: this program reads {VERSION}")
        columns = [Column.from_dict(column) for column in data["columns"]]
        categories = [Column.from_dict(column) for column in data["categories"]]
        model = data["click_model"]
        return cls(
            data["rows"], data["requests"], {c.name: c for c in columns}, Column.from_dict(data["scores"]),
            {c.name: c for c in categories}, tuple(data["label_shares"]),
            None if model is None else ClickModel.from_dict(model), data["meta"],
            data["seconds"], data["asked"], None if data["clicks"] is None else Rate(**data["clicks"]),
            data["counts"], {name: Slice.from_dict(part) for name, part in data["slices"].items()},
        )  # fmt: skip


def summarise(
    features: NDArray[np.float32], names: Sequence[str], scores: NDArray[Any], labels: NDArray[Any] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None, *, positions: NDArray[Any] | None = None,
    requests: int | None = None, meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The baseline of rows that were shown, as a JSON document (about 20 KB).

    `features` [n, F] float32, NaN where unknown; `names` its F columns; `scores` [n] the ranker's; `labels` [n] (0
    nothing, 1 click, 2 cart, 3 order) of the same rows; `categories` texts by name, one per request (device, country);
    `positions` [n] 1-based places in the feed; `requests` how many requests the rows come from (they, not the rows,
    are independent; default: n). Raises ValueError if lengths differ. No rows at all is allowed.
    """
    return baseline_of(
        features, names, scores, labels, categories, positions=positions, requests=requests, meta=meta
    ).as_dict()


def baseline_of(
    features: NDArray[np.float32], names: Sequence[str], scores: NDArray[Any], labels: NDArray[Any] | None = None,
    categories: Mapping[str, Sequence[Any]] | None = None, *, positions: NDArray[Any] | None = None,
    requests: int | None = None, meta: Mapping[str, Any] | None = None, grid: int = GRID,
) -> Baseline:  # fmt: skip
    """As `summarise`, as an object; `grid` is the number of quantile steps."""
    n = len(scores)
    if features.shape != (n, len(names)):
        raise ValueError(f"features have shape {features.shape}, expected ({n}, {len(names)})")
    for what, given in (("labels", labels), ("positions", positions)):
        if given is not None and len(given) != n:
            raise ValueError(f"{len(given)} {what} for {n} rows")
    units = n if requests is None else requests
    columns = {name: numeric(name, features[:, i], units=units, grid=grid) for i, name in enumerate(names)}
    texts = {name: category(name, values) for name, values in (categories or {}).items()}
    shares: tuple[float, ...] = ()
    model = None
    if labels is not None and n:
        grades = np.asarray(labels)
        shares = tuple(float(np.mean(grades >= grade)) for grade in (1, 2, 3))
        if min(np.sum(grades >= 1), np.sum(grades < 1)) >= LEAST_CLICKS:
            model = ClickModel.fit(scores, grades >= 1, positions)
    score = numeric("score", scores, units=units, grid=grid)
    return Baseline(n, units, columns, score, texts, shares, model, meta or {})


def shown_rows(scores: NDArray[Any], groups: NDArray[Any], most: int = SHOWN) -> NDArray[np.int64]:
    """Rows of the `most` best-scored candidates of each request; `groups` [G] rows per request, in order."""
    request = np.repeat(np.arange(len(groups)), groups)
    order = np.lexsort((-np.asarray(scores), request))
    place = np.arange(len(order)) - np.repeat(np.cumsum(groups) - groups, groups)
    return np.asarray(order[place < most], np.int64)
