"""The metrics, and the three treatments that move them: ties, seen items, missing items."""

from __future__ import annotations

import numpy as np
import pytest

from models.bootstrap import interval, intervals, paired
from models.metrics import (
    METRICS,
    coverage,
    intra_list_diversity,
    list_diversity,
    ndcg,
    novelty,
    per_shopper,
    ranks_from_ahead,
    ranks_from_list,
    ranks_from_scores,
    rivals_ahead,
)


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


@pytest.mark.parametrize("most", [1, 6])
def test_a_whole_batch_ranks_as_one_by_one(most: int) -> None:
    rng = np.random.default_rng(most)
    scores = rng.integers(0, 12, (30, 60)).astype(np.float32)  # many ties
    relevant = [rng.choice(60, rng.integers(1, most + 1), replace=False) for _ in range(30)]
    seen = [rng.choice(60, 9, replace=False) for _ in range(30)]
    owner = np.repeat(np.arange(30), [len(items) for items in relevant])
    hidden = scores.copy()
    for row, items in enumerate(seen):
        hidden[row, items] = np.nan
    ranks = ranks_from_ahead(rivals_ahead(hidden, owner, np.concatenate(relevant)), owner, 30)
    for row in range(30):
        np.testing.assert_array_equal(ranks[row], ranks_from_scores(scores[row], relevant[row], seen[row]))
    names = [f"{metric}@{k}" for metric in METRICS for k in (5, 10)]
    table = per_shopper(ranks, names)
    for name in names:
        metric, k = name.split("@")
        np.testing.assert_allclose(table[name], [METRICS[metric](one, int(k)) for one in ranks], err_msg=name)


def test_optimistic_ties_and_what_must_not_compete() -> None:
    scores = np.array([[1.0, 1.0, np.nan, 0.0]], dtype=np.float32)
    one = (np.zeros(1, dtype=int), np.array([0]))
    assert rivals_ahead(scores, *one).tolist() == [1.0]
    assert rivals_ahead(scores, *one, pessimistic=False).tolist() == [0.0]
    assert rivals_ahead(scores, one[0], np.array([2])).tolist() == [np.inf]


def test_diversity_and_novelty_of_lists() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    lists = np.array([[0, 1], [0, 2], [1, 2]])
    expected = [intra_list_diversity(vectors[rows]) for rows in lists]
    np.testing.assert_allclose(list_diversity(vectors, lists), expected)
    assert list_diversity(vectors, lists[:, :1]).tolist() == [0, 0, 0]
    np.testing.assert_allclose(novelty(np.array([[0, 1], [2, 2]]), np.array([7, 3, 0]), 7), [0.5, 3.0])


def test_intervals_of_many_columns_are_those_of_each() -> None:
    rng = np.random.default_rng(1)
    columns = {"a": rng.random(120), "b": rng.random(120)}
    found = intervals(columns, seed=3)
    for name, values in columns.items():
        one = interval(values, seed=3)
        np.testing.assert_allclose(
            [found[name].mean, found[name].low, found[name].high], [one.mean, one.low, one.high], atol=1e-12
        )
    assert intervals({}, seed=3) == {}
    with pytest.raises(ValueError, match="no shoppers"):
        intervals({"a": np.zeros(0)}, seed=3)
