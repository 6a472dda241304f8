"""A window of live traffic as arrays: what was shown, with which features and scores, and what was clicked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import ClickModel
from models.drift.base import Rate
from models.drift.baseline import Baseline, Slice, baseline_of
from models.drift.columns import GRID, category, numeric
from models.drift.watched import SLICED


@dataclass(frozen=True, eq=False)
class Traffic:
    """R requests and their n shown rows, possibly a sample of `asked` requests within `seconds`.

    `request` [n] is the row's request; `texts` and `numbers` hold a value per request; `settled` [R] says whose clicks
    are all in by now. Rows are in order of request, requests in order of time.
    """

    names: tuple[str, ...]
    features: NDArray[np.float32]
    scores: NDArray[np.float64]
    positions: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    request: NDArray[np.int64]
    at_ms: NDArray[np.int64]
    settled: NDArray[np.bool_]
    seconds: float
    asked: int
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Columns of the window's events, of any length; not divided by `where`."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Events of each kind in the window."""
    event_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts of the window's events, which came in `visits` independent visits; not divided by `where`."""
    visits: int = 0

    @property
    def requests(self) -> int:
        return len(self.at_ms)

    def where(self, keep: NDArray[np.bool_]) -> Traffic:
        """The requests where `keep` [R] is true; `asked` shrinks in proportion."""
        rows, place = keep[self.request], np.cumsum(keep) - 1
        chosen = np.flatnonzero(keep)
        return replace(
            self, features=self.features[rows], scores=self.scores[rows], positions=self.positions[rows],
            clicked=self.clicked[rows], request=place[self.request[rows]], at_ms=self.at_ms[keep],
            settled=self.settled[keep], asked=round(self.asked * len(chosen) / max(self.requests, 1)),
            texts={name: tuple(values[i] for i in chosen) for name, values in self.texts.items()},
            numbers={name: values[keep] for name, values in self.numbers.items()},
        )  # fmt: skip

    def between(self, since_ms: int, until_ms: int) -> Traffic:
        """The requests of that time; `asked` stays in proportion, `seconds` become those of the range."""
        inside = (self.at_ms >= since_ms) & (self.at_ms < until_ms)
        return replace(self.where(inside), seconds=(until_ms - since_ms) / 1000)

    def slices(self) -> dict[str, Traffic]:
        """The traffic of every value of the sliced texts, by `name=value`."""
        found: dict[str, Traffic] = {}
        for name in SLICED:
            values = np.asarray(self.texts.get(name, ()), dtype=str)
            for value in sorted(set(values.tolist()) - {""}):
                found[f"{name}={value}"] = self.where(values == value)
        return found

    def clicks(self) -> Rate:
        """Clicks per shown product of settled requests, with their spread from request to request."""
        hits, shown = self._per_request(self.clicked), self._per_request(np.ones(len(self.request)))
        rate = hits.sum() / max(shown.sum(), 1)
        return Rate(float(hits.sum()), float(shown.sum()), _spread(hits - rate * shown))

    def calibration(self, model: ClickModel) -> Rate:
        """Clicks over the clicks that `model` expects, with the spread of their difference."""
        expected = self._per_request(model.predict(self.scores, self.positions))
        hits = self._per_request(self.clicked)
        return Rate(float(hits.sum()), float(expected.sum()), _spread(hits - expected))

    def surprises(self, model: ClickModel) -> NDArray[np.float64]:
        """Per settled request, in order of time: how far its clicks missed the expectation, as a value in [0, 1]."""
        missed = self._per_request(self.clicked) - self._per_request(model.predict(self.scores, self.positions))
        return np.asarray(np.clip(0.5 + missed / 4, 0, 1))

    def baseline(self, meta: Mapping[str, Any] | None = None, *, grid: int = GRID) -> Baseline:
        """The window, summarised."""
        rows = self.settled[self.request]
        notes = {**self.meta, **(meta or {})}
        whole = baseline_of(
            self.features, self.names, self.scores, requests=self.requests, grid=grid, meta=notes
        )
        labelled = baseline_of(
            self.features[rows][:, :0], (), self.scores[rows], self.clicked[rows].astype(np.int64),
            positions=self.positions[rows],
        )  # fmt: skip
        numbers = {name: numeric(name, values, grid=grid) for name, values in self.numbers.items()}
        numbers |= {name: numeric(name, values, grid=grid) for name, values in self.events.items()}
        texts = {name: category(name, values) for name, values in self.texts.items()}
        texts |= {name: category(name, values, units=self.visits) for name, values in self.event_texts.items()}
        numbers["confidence"] = numeric("confidence", self._confidence(), grid=grid)
        return replace(
            whole, columns={**whole.columns, **numbers}, label_shares=labelled.label_shares,
            categories=texts,
            click_model=labelled.click_model, seconds=self.seconds, asked=self.asked, clicks=self.clicks(),
            counts=dict(self.counts), slices={name: part.slice() for name, part in self.slices().items()},
        )  # fmt: skip

    def slice(self) -> Slice:
        return Slice(self.requests, numeric("score", self.scores, units=self.requests), self.clicks())

    def _per_request(self, values: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(self.request, np.asarray(values, np.float64), self.requests)
        return np.asarray(sums[self.settled], np.float64)

    def _confidence(self) -> NDArray[np.float64]:
        """Per request, how far the best score stands above the middle one."""
        order = np.lexsort((self.scores, self.request))
        size = np.bincount(self.request, minlength=self.requests)
        end = np.cumsum(size)
        filled = size > 0
        top = self.scores[order][np.maximum(end - 1, 0)[filled]]
        middle = self.scores[order][(end - size + size // 2)[filled]]
        found = np.full(self.requests, np.nan)
        found[filled] = top - middle
        return found


def join(windows: Sequence[Traffic]) -> Traffic:
    """Windows one after another as one, with the names and notes of the first. ValueError without any."""
    if not windows:
        raise ValueError("no windows to join")
    first = windows[0]
    offset = np.cumsum([0, *(w.requests for w in windows[:-1])])
    return Traffic(
        first.names, np.concatenate([w.features for w in windows]), np.concatenate([w.scores for w in windows]),
        np.concatenate([w.positions for w in windows]), np.concatenate([w.clicked for w in windows]),
        np.concatenate([w.request + o for w, o in zip(windows, offset, strict=True)]),
        np.concatenate([w.at_ms for w in windows]), np.concatenate([w.settled for w in windows]),
        sum(w.seconds for w in windows), sum(w.asked for w in windows),
        {name: tuple(v for w in windows for v in w.texts[name]) for name in first.texts},
        {name: np.concatenate([w.numbers[name] for w in windows]) for name in first.numbers}, first.meta,
        {name: np.concatenate([w.events[name] for w in windows]) for name in first.events},
        {name: sum(w.counts[name] for w in windows) for name in first.counts},
        {name: tuple(v for w in windows for v in w.event_texts[name]) for name in first.event_texts},
        sum(w.visits for w in windows),
    )  # fmt: skip


def _spread(residuals: NDArray[np.float64]) -> float | None:
    """Standard deviation of a sum of independent residuals; None without any."""
    return float(np.sqrt(np.sum(residuals**2))) if len(residuals) else None
