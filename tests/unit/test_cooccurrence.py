"""The neighbours against a brute-force count, and the look-ups against each other."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cooccurrence import Cooccurrence, CooccurrenceConfig, build
from models.popularity import DAY_MS, PopularityConfig, popularity

NOW = 100 * DAY_MS


def brute(users: np.ndarray, items: np.ndarray, times: np.ndarray, n: int, config: CooccurrenceConfig) -> np.ndarray:
    sums, histories = np.zeros((n, n)), defaultdict(list)
    for u, t, i in sorted(zip(users, times, items, strict=True)):
        histories[u].append((i, t))
    for history in histories.values():
        for b, (item, t) in enumerate(history):
            for a in range(max(0, b - config.window), b):
                if history[a][0] != item:
                    weight = config.gap_decay ** (b - a - 1) * 0.5 ** ((NOW - t) / DAY_MS / config.half_life_days)
                    sums[history[a][0], item] += weight
                    sums[item, history[a][0]] += weight
    mass = sums.sum(axis=1) + config.shrink
    return sums / np.outer(mass, mass) ** config.power


@given(st.integers(0, 10_000), st.booleans())
def test_against_brute_force(seed: int, small: bool) -> None:
    rng = np.random.default_rng(seed)
    n, events = 12, int(rng.integers(0, 80))
    users, items = rng.integers(0, 6, events), rng.integers(0, n, events)
    times = NOW - rng.integers(0, 50, events) * DAY_MS
    config = CooccurrenceConfig(window=3, neighbours=n)
    with patch("models.cooccurrence._DENSE_BELOW", n if small else 0):
        found, dense = build(users, items, times, n, NOW, config), np.zeros((n, n))
    for a in range(n):
        keep = found.ids[a] >= 0
        dense[a, found.ids[a][keep]] = found.scores[a][keep]
        assert np.all(np.diff(found.scores[a][keep]) <= 0)
    np.testing.assert_allclose(dense, brute(users, items, times, n, config), atol=1e-6)


def test_only_the_best_neighbours_are_kept() -> None:
    users, items = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 2])
    found = build(users, items, np.full(6, NOW), 4, NOW, CooccurrenceConfig(neighbours=1))
    assert found.ids[:, 0].tolist() == [1, 0, 0, -1]


def test_retrieve_and_score_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    built = build(rng.integers(0, 40, 900), rng.integers(0, 60, 900), NOW - rng.integers(0, 9, 900), 60, NOW)
    built.save(tmp_path / "neighbours.npz")
    model = Cooccurrence.load(tmp_path / "neighbours.npz")
    recent = np.array([5, 7, 59, -1, 7])
    rows, scores = model.retrieve(recent, 25)
    assert len(rows) == 25
    assert np.all(np.diff(scores) <= 0)
    assert len(set(rows.tolist())) == 25
    np.testing.assert_allclose(model.features(recent, rows)["cooccurrence_score"], scores, rtol=1e-6)
    everything = model.features(recent, np.arange(60))["cooccurrence_score"]
    assert set(np.argsort(-everything)[:20]) == set(rows[:20])
    assert len(model.retrieve(np.zeros(0, dtype=int), 10)[0]) == 0
    assert {name: one.tolist() for name, one in model.features(np.zeros(0, dtype=int), np.arange(3)).items()} == {
        "cooccurrence_score": [0, 0, 0], "cooccurrence_steady_score": [0, 0, 0],
    }  # fmt: skip


def test_the_newest_say_most_and_steadily_all_the_same() -> None:
    ids, scores = np.array([[2], [3], [-1], [-1]], dtype=np.int32), np.ones((4, 1), dtype=np.float32)
    model = Cooccurrence(ids, scores, CooccurrenceConfig(recency=1.0).say)
    told = model.features(np.array([0, 1, 1]), np.arange(4))
    assert told["cooccurrence_score"].tolist() == pytest.approx([0, 0, 1, 1 / 2 + 1 / 3])
    assert told["cooccurrence_steady_score"].tolist() == [0, 0, 1, 2]
    longer = np.concatenate([np.full(20, 1), np.full(9, 0)])  # what is older than twenty items counts nothing
    assert model.features(longer, np.array([2]))["cooccurrence_steady_score"].tolist() == [0]


def test_a_strange_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ids=np.zeros((2, 3)), scores=np.zeros((2, 2)), say=np.ones(20))
    with pytest.raises(ValueError, match="do not belong together"):
        Cooccurrence.load(tmp_path / "x.npz")


def test_popularity_decays() -> None:
    times = np.array([NOW, NOW - 7 * DAY_MS, NOW - 7 * DAY_MS])
    scores = popularity(np.array([0, 1, 1]), times, np.ones(3), 3, NOW, PopularityConfig(half_life_days=7))
    np.testing.assert_allclose(np.expm1(scores), [1.0, 1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"gap_decay": 0}, {"half_life_days": -1}, {"recency": -1}])
def test_configs_check_themselves(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        CooccurrenceConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        CooccurrenceConfig(half_life_days=0)
    with pytest.raises(ValueError):
        PopularityConfig(0)
