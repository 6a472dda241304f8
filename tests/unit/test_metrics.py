"""The metrics, and the three treatments that move them: ties, seen items, missing items."""

from __future__ import annotations

import numpy as np
import pytest

from models.bootstrap import interval, paired
from models.metrics import coverage, intra_list_diversity, ndcg, ranks_from_list, ranks_from_scores


def test_ties_are_pessimistic() -> None:
    assert ranks_from_scores(np.zeros(5), np.array([2])).tolist() == [5.0]
    assert ranks_from_scores(np.zeros(5), np.array([2, 3])).tolist() == [4.0, 5.0]
    assert ranks_from_scores(np.array([1.0, np.nan, 0.5]), np.array([1])).tolist() == [3.0]


def test_seen_items_neither_compete_nor_count() -> None:
    scores = np.array([5.0, 4.0, 3.0, 2.0])
    assert ranks_from_scores(scores, np.array([2]), np.array([0, 1])).tolist() == [1.0]
    assert ranks_from_scores(scores, np.array([2, 0]), np.array([0])).tolist() == [2.0, np.inf]


def test_items_missing_from_a_list_have_no_rank() -> None:
    ranks = ranks_from_list(["a", "b", "c"], ["c", "z"])
    assert ranks.tolist() == [3.0, np.inf]
    assert ndcg(ranks, 10) == pytest.approx((1 / 2) / (1 + 1 / np.log2(3)))


def test_coverage_and_diversity() -> None:
    assert coverage([np.array([0, 1]), np.array([1, 2])], 6) == 0.5
    assert coverage([], 6) == 0.0
    assert intra_list_diversity(np.eye(4)) == pytest.approx(1.0)
    assert intra_list_diversity(np.tile([[1.0, 0.0]], (3, 1))) == pytest.approx(0.0)
    assert intra_list_diversity(np.ones((1, 2))) == 0.0


def test_intervals() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    better = interval(base, seed=1)
    assert better.low < better.mean < better.high
    assert interval(base, seed=1) == better
    assert paired(base + 0.01, base, seed=1).low == pytest.approx(0.01)
    with pytest.raises(ValueError, match="no values"):
        interval(np.zeros(0), seed=1)
    with pytest.raises(ValueError, match="same shoppers"):
        paired(base, base[:5], seed=1)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = [(i := interval(rng.normal(0, 1, 200), seed=s, draws=300)).low <= 0 <= i.high for s in range(200)]
    assert 0.88 <= np.mean(covered) <= 0.99
