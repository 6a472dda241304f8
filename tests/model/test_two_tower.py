"""The two-tower model on a planted toy: it learns, exports and resumes exactly, and knows cold items by content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import onnx_export
from models.metrics import ranks_from_scores, recall
from models.popularity import DAY_MS
from models.two_tower import Content, TwoTower, TwoTowerConfig
from models.two_tower_training import Examples, Fitted, Questions, fit, follow, recall_at_100

USERS, ITEMS, EVENTS, DAYS = 300, 400, 12_000, 20
CONFIG = TwoTowerConfig(
    dim=16, hidden=32, batch=256, uniform_negatives=64, epochs=4, learning_rate=1e-2, temperature=0.1
)


class Toy:
    """Shoppers with a taste for two of twelve categories; popular items in each."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.category = rng.integers(1, 13, ITEMS)
        liked = rng.integers(1, 13, (USERS, 2))
        users, times = rng.integers(0, USERS, EVENTS), np.sort(rng.integers(0, DAYS * DAY_MS, EVENTS))
        heat, items = rng.gamma(1.0, 1.0, ITEMS), np.empty(EVENTS, dtype=np.int64)
        wanted = liked[users, rng.integers(0, 2, EVENTS)]
        for category in range(1, 13):
            mine = np.flatnonzero(wanted == category)
            pool = np.flatnonzero(self.category == category)
            items[mine] = rng.choice(pool, len(mine), p=heat[pool] / heat[pool].sum())
        recent, held = np.zeros((EVENTS, 20), dtype=np.int64), [[] for _ in range(USERS)]
        for e, (user, item) in enumerate(zip(users, items, strict=True)):
            recent[e, : len(held[user][:20])] = held[user][:20]
            held[user].insert(0, item + 1)
        everything = Examples(users + 1, items + 1, recent, times)
        self.train = everything.where(times < (DAYS - 2) * DAY_MS)
        later = everything.where(times >= (DAYS - 2) * DAY_MS)
        self.questions = Questions(later.users, later.recent, [np.array([i]) for i in later.items])
        self.content = Content(np.concatenate([[0], self.category]), np.full(ITEMS + 1, np.nan, dtype=np.float32))


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def fitted(toy: Toy) -> Fitted:
    return fit(USERS, toy.content, toy.train, toy.questions, CONFIG, threads=1)


def test_far_above_popularity(toy: Toy, fitted: Fitted) -> None:
    popular = np.bincount(toy.train.items, minlength=ITEMS + 1)[1:].astype(float)
    baseline = np.mean([recall(ranks_from_scores(popular, r - 1), 100) for r in toy.questions.relevant])
    assert fitted.best_recall > baseline + 0.2
    assert recall_at_100(fitted.model, toy.questions) == pytest.approx(fitted.best_recall)


def test_onnx_parity(toy: Toy, fitted: Fitted) -> None:
    users, recent = toy.questions.users[:64].copy(), toy.questions.recent[:64].copy()
    users[0], recent[1] = 0, 0
    ours = fitted.model.embed_users(users, recent)
    graph = onnx_export.user_encoder(fitted.model)
    found = onnx_export.run(graph, {"user_index": users, "recent_items": recent})
    assert onnx_export.max_difference(found, ours) < 1e-5
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)
    index = np.arange(1, ITEMS + 1)
    inputs = {"item_index": index, "category_index": toy.category, "log_price": toy.content.log_price[1:]}
    found = onnx_export.run(onnx_export.item_encoder(fitted.model), inputs)
    assert onnx_export.max_difference(found, fitted.model.embed_items()) < 1e-5


def test_a_cold_item_is_known_by_its_content(toy: Toy, fitted: Fitted) -> None:
    graph, zeros = onnx_export.item_encoder(fitted.model), np.zeros(12, dtype=np.int64)
    cold = onnx_export.run(graph, {
        "item_index": zeros, "category_index": np.arange(1, 13), "log_price": np.full(12, np.nan, dtype=np.float32),
    })  # fmt: skip
    nearest = np.argsort(-(cold @ fitted.model.embed_items().T), axis=1)[:, :10]
    assert np.mean(toy.category[nearest] == np.arange(1, 13)[:, None]) > 0.7


def test_killed_and_resumed_gives_the_same_weights(toy: Toy, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=3, patience=3)
    whole = fit(USERS, toy.content, toy.train, toy.questions, config, threads=1)

    class Killed(Exception):
        pass

    def kill(epoch: int, _: dict[str, float]) -> None:
        if epoch == 2:
            raise Killed

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        fit(USERS, toy.content, toy.train, toy.questions, config, checkpoint=path, report=kill, threads=1)
    resumed = fit(USERS, toy.content, toy.train, toy.questions, config, checkpoint=path, threads=1)
    assert resumed.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_larger_model_goes_on_from_a_smaller_one(toy: Toy, fitted: Fitted) -> None:
    content = Content(np.append(toy.content.category, 3), np.append(toy.content.log_price, np.float32(8.0)))
    grown = TwoTower(USERS + 5, content, CONFIG)
    grown.grow_from(fitted.model.state_dict())
    np.testing.assert_array_equal(grown.embed_items()[:ITEMS], fitted.model.embed_items())
    newcomer = grown.embed_users(np.array([0, USERS + 3]), np.zeros((2, 20), dtype=np.int64))
    np.testing.assert_array_equal(newcomer[0], newcomer[1])
    before = recall_at_100(grown, toy.questions)
    assert np.isfinite(follow(grown, toy.train))
    assert recall_at_100(grown, toy.questions) > before - 0.1


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"temperature": 0.0}, {"user_dropout": 1.0}])
def test_the_configuration_checks_itself(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        replace(CONFIG, **wrong)
