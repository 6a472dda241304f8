"""The two-tower model that serving uses, behind the base of the retrieval models: ids, content and recent items.

Sampled softmax over the batch's items and uniform ones, corrected by their expected counts (`models/two_tower.py`).
Every entry of a sequence but its first is an example, with the entries before it as recent items.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from models.recommenders.base import Floats, Histories, Ints, Recommender, Sequences, Training
from models.two_tower import Content, TwoTower, TwoTowerConfig
from models.two_tower_training import Examples, prepare, spectral_start, train_epoch

_MOST_EXAMPLES = 1_500_000


class TwoTowers(Recommender):
    """Item and user vectors whose cosine ranks."""

    name = "two-tower"
    default = {"learning_rate": 3e-3, "temperature": 0.08, "user_dropout": 0.5, "item_dropout": 0.15}
    space = {
        "learning_rate": (1e-3, 3e-3), "temperature": (0.05, 0.08, 0.12), "user_dropout": (0.3, 0.5, 0.9),
        "item_dropout": (0.05, 0.15, 0.4),
    }  # fmt: skip
    rounds = 12
    share = 2.0

    def fit(self, training: Training) -> None:
        prepare(training.seed, training.threads)
        # Without times every interaction counts alike: a half-life that no order reaches.
        network = TwoTowerConfig(seed=training.seed, half_life_days=1e9, **self.config)
        self._examples = _examples(training.sequences.newest(_MOST_EXAMPLES), network.recent)
        self._model = TwoTower(len(training.sequences), _content(training), network)
        if min(len(training.sequences), training.n_items) > network.dim:
            spectral_start(self._model, self._examples)
        self._optimiser = torch.optim.Adam(self._model.parameters(), lr=network.learning_rate)
        self._done = 0

    def round(self) -> float:
        loss = train_epoch(self._model, self._optimiser, self._examples, self._done)
        self._done += 1
        return loss

    def snapshot(self) -> Recommender:
        model = copy.copy(self)
        model._model = copy.deepcopy(self._model)
        return model

    def score(self, histories: Histories) -> Floats:
        items = self._model.embed_items()
        recent = _recent(histories.sequences, self._model.config.recent)
        return np.asarray(self._model.embed_users(histories.users + 1, recent) @ items.T, dtype=np.float32)


def _content(training: Training) -> Content:
    catalogue, n_items = training.catalogue, training.n_items
    category = np.zeros(n_items + 1, dtype=np.int64)
    if catalogue.category is not None:
        category[1:] = catalogue.category + 1
    price = np.full(n_items + 1, np.nan, dtype=np.float32)
    if catalogue.log_price is not None:
        price[1:] = catalogue.log_price
    return Content(category, price)


def _recent(sequences: Sequences, most: int) -> Ints:
    """int64 [S, most]: the newest items first, 1-based, 0 where there is none."""
    age, recent = sequences.from_end, np.zeros((len(sequences), most), dtype=np.int64)
    keep = age < most
    recent[sequences.owner[keep], age[keep]] = sequences.items[keep] + 1
    return recent


def _examples(sequences: Sequences, most: int) -> Examples:
    items, owner = sequences.items, sequences.owner
    place = np.arange(len(items)) - sequences.starts[owner]
    recent = np.zeros((len(items), most), dtype=np.int64)
    for gap in range(1, most + 1):
        later = np.flatnonzero(place >= gap)
        recent[later, gap - 1] = items[later - gap] + 1
    keep = place > 0
    if not keep.any():
        keep[:] = True
    times = np.zeros(int(keep.sum()), dtype=np.int64)
    return Examples(owner[keep] + 1, items[keep] + 1, recent[keep], times)
