"""What a window is compared with: the training rows, the last healthy window, or the same hour of last week.

The healthy window is kept in `home/drift/healthy.json`: the first one with enough traffic under the serving versions is
trusted, widened while windows stay healthy until it spans three of them, and renewed after a day's worth of health, so
that it neither jumps at every breath nor follows a slow drift for ever.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from adapters.analytics import Store
from adapters.errors import MinimartError
from adapters.pointers import load_current
from models.drift.baseline import Baseline
from models.drift.traffic import Traffic
from pipelines.drift_traffic import Versions, read

Source = Literal["training", "last_healthy", "same_hour_last_week"]
SOURCES: Final[tuple[Source, ...]] = ("training", "last_healthy", "same_hour_last_week")
WEEK_MS: Final = 7 * 86_400_000
WIDEST: Final = 3
RENEWED_AFTER: Final = 24
LEAST_REQUESTS, LEAST_CLICKS = 200, 30
SAMPLE: Final = 2500


class Healthy:
    """The healthy window of one home."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "healthy.json"

    def load(self, versions: Versions) -> Baseline | None:
        """The healthy window under these versions; None if there is none, or none that can be read."""
        try:
            found = Baseline.from_dict(json.loads(self._path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        held = found.meta.get("ranker_version"), found.meta.get("two_tower_version")
        return found if held == (versions.ranker, versions.two_tower) else None

    def versions(self) -> Versions | None:
        """The versions that served when the platform was last healthy: whom to miss when nobody serves."""
        try:
            meta = json.loads(self._path.read_bytes())["meta"]
            return Versions(meta["ranker_version"], meta["two_tower_version"], 0, 0)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, traffic: Traffic) -> Baseline | None:
        """Make `traffic` the healthy window; None, and nothing changed, if it is too little to compare with."""
        if traffic.requests < LEAST_REQUESTS or int(traffic.clicked.sum()) < LEAST_CLICKS:
            return None
        found = traffic.baseline({"source": "last_healthy"})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_suffix(".part")
        scratch.write_text(json.dumps(found.as_dict()))
        scratch.replace(self._path)
        return found

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def due(held: Baseline, window_ms: int, until_ms: int) -> bool:
    """Whether the healthy window is to be widened or renewed after another healthy one that ends at `until_ms`."""
    widening = held.meta["until_ms"] - held.meta["since_ms"] < WIDEST * window_ms * 0.99
    return bool(until_ms - held.meta["until_ms"] >= (1 if widening else RENEWED_AFTER) * window_ms)


def recent(store: Store, versions: Versions, window_ms: int, until_ms: int, settle_ms: int) -> Traffic:
    """The traffic of the last windows under these versions, from its first answer on."""
    since = max(until_ms - WIDEST * window_ms, versions.first_ms)
    return read(store, versions, min(since, until_ms - 1), until_ms, settle_ms=settle_ms, sample=SAMPLE)


def of_training(published: Path) -> Baseline | None:
    """The baseline that the serving ranker brought along; None if it brought none."""
    try:
        bundle = load_current(published).get("ranker")
        found = None if bundle is None else Baseline.from_dict(json.loads(bundle.path("baseline.json").read_bytes()))
    except (MinimartError, ValueError, KeyError, TypeError):
        return None
    # Training labels are of sampled candidates and the whole window after them: no click rate of live feeds.
    return None if found is None else replace(found, click_model=None, clicks=None)


def of_last_week(store: Store, versions: Versions, window_ms: int, until_ms: int, settle_ms: int) -> Baseline | None:
    """The same window a week ago, under the same versions; None if it is too thin."""
    since, until = until_ms - WEEK_MS - window_ms, until_ms - WEEK_MS
    found = read(store, versions, since, until, settle_ms=settle_ms, sample=SAMPLE)
    return found.baseline({"source": "same_hour_last_week"}) if found.requests >= LEAST_REQUESTS else None
