"""What everybody touches, the same for all; lately, when times are known. The baseline that the others must beat."""

from __future__ import annotations

import numpy as np

from models.popularity import DAY_MS, PopularityConfig, popularity
from models.recommenders.base import Floats, Histories, Recommender, Training


class Popularity(Recommender):
    """Decayed counts; `half_life` is a share of the span of the data, 0 counts every event as one."""

    name = "popularity"
    default = {"half_life": 0.0}
    space = {"half_life": (0.0, 0.01, 0.03, 0.1, 0.3)}
    share = 0.1

    def fit(self, training: Training) -> None:
        items, times = training.sequences.items, training.sequences.time_ms
        if times is None or not self.config["half_life"] or not len(times):
            self._scores = np.log1p(training.counts).astype(np.float32)
            return
        newest = int(times.max())
        span = max((newest - int(times.min())) / DAY_MS, 1.0)
        decay = PopularityConfig(half_life_days=self.config["half_life"] * span)
        self._scores = popularity(items, times, np.ones(len(items)), training.n_items, newest, decay)

    def score(self, histories: Histories) -> Floats:
        return np.tile(self._scores, (len(histories), 1))
