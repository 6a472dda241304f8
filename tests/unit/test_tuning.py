"""The tuner: finds what is planted, keeps to its time, stops when validation does, and hands out the best state."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from models.recommenders.base import Catalogue, Floats, Histories, Recommender, Sequences, Training
from pipelines.evaluate.protocols import Questions
from pipelines.evaluate.tuning import Tuner

USERS, ITEMS = 60, 40


class Planted(Recommender):
    """Knows the answer (each user's own number) as well as its options say."""

    name = "planted"
    default = {"a": 0, "b": 0}
    space = {"a": (0, 1, 2, 3), "b": (0, 1, 2)}
    fits: ClassVar[list[int]] = []

    def fit(self, training: Training) -> None:
        self.fits.append(training.n_items)
        self.n_items = training.n_items

    def strength(self) -> float:
        return float(self.config["a"] + self.config["b"]) / 5

    def score(self, histories: Histories) -> Floats:
        rng = np.random.default_rng(1)
        scores = rng.random((len(histories), self.n_items)).astype(np.float32)
        rows = np.arange(len(histories))
        wanted = histories.sequences.items[histories.sequences.starts[:-1]] + 1
        scores[rows, np.minimum(wanted, self.n_items - 1)] += np.float32(self.strength())
        return scores


class ByRounds(Planted):
    name = "by rounds"
    rounds = 30

    def fit(self, training: Training) -> None:
        super().fit(training)
        self.done = 0

    def round(self) -> float:
        self.done += 1
        return 1.0 / self.done

    def strength(self) -> float:
        return 2.0 - 0.4 * abs(self.done - 6)  # best after six rounds


class Small(Planted):
    name = "small"
    tuned_on = 10


def sequences(rows: list[list[int]]) -> Sequences:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sequences(starts, np.array([item for row in rows for item in row], dtype=np.int64))


@pytest.fixture
def tuner() -> Tuner:
    first = [user % (ITEMS - 1) for user in range(USERS)]
    learn = sequences([[item] for item in first])
    questions = Questions(Histories(learn, np.arange(USERS)), sequences([[item + 1] for item in first]))
    return Tuner(Training(learn, Catalogue(ITEMS)), questions, mask=True, k=10, seed=7)


def test_the_planted_options_are_found(tuner: Tuner) -> None:
    found = tuner.tune(Planted, 60)
    assert found.chosen.config == {"a": 3, "b": 2}
    assert found.model.config == found.chosen.config
    assert found.trials[0].config == Planted.default
    assert len({str(trial.config) for trial in found.trials}) == len(found.trials) == 12  # all, none twice
    assert found.chosen.best == max(trial.best for trial in found.trials)


def test_without_time_the_default_is_finished(tuner: Tuner) -> None:
    found = tuner.tune(Planted, 0.0)
    assert [trial.config for trial in found.trials] == [Planted.default]
    assert found.model.score(tuner.questions.histories).shape == (USERS, ITEMS)


def test_rounds_stop_when_validation_falls_and_the_best_state_is_kept(tuner: Tuner) -> None:
    found = tuner.tune(ByRounds, 1e6)
    model: Any = found.model
    assert model.done == found.rounds
    assert found.chosen.values[found.rounds - 1] == max(found.chosen.values)
    assert found.chosen.rounds < ByRounds.rounds
    assert len(found.chosen.losses) == found.chosen.rounds


def test_a_costly_model_is_tuned_on_the_popular_items_and_fitted_on_all(tuner: Tuner) -> None:
    Planted.fits.clear()
    found = tuner.tune(Small, 60)
    assert set(Planted.fits[:-1]) == {10}
    assert Planted.fits[-1] == ITEMS
    assert found.model.score(tuner.questions.histories).shape == (USERS, ITEMS)


def test_the_same_seed_tries_the_same(tuner: Tuner) -> None:
    one, two = (tuner.tune(Planted, 60) for _ in range(2))
    assert [trial.config for trial in one.trials] == [trial.config for trial in two.trials]
