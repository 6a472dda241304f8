"""The index by size, its recall, and maximal marginal relevance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ann_index import AnnConfig, AnnIndex
from models.diversity import calibrated, miscalibration, mmr


def clustered(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(40, d))[rng.integers(0, 40, n)] + 0.4 * rng.normal(size=(n, d))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


EXACT = AnnConfig()
HNSW = AnnConfig(exact_below=0, hnsw_below=10**9)
IVF = AnnConfig(exact_below=0, hnsw_below=0, lists_per_root=1)


@pytest.mark.parametrize(("config", "recall"), [(EXACT, 1.0), (HNSW, 0.99), (IVF, 0.95)])
def test_recall_and_round_trip(tmp_path: Path, config: AnnConfig, recall: float) -> None:
    vectors = clustered(3000)
    AnnIndex.build(vectors, config).save(tmp_path / "items.faiss")
    index, queries = AnnIndex.load(tmp_path / "items.faiss"), clustered(50, seed=1)
    scores, rows = index.search(queries, 100)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :100]
    assert np.mean([len(set(a) & set(b)) / 100 for a, b in zip(rows, exact, strict=True)]) >= recall
    assert len(index) == 3000
    assert index.dim == 16
    assert np.all(np.diff(scores, axis=1) <= 1e-6)
    np.testing.assert_allclose(index.score(queries[0], rows[0]), scores[0], atol=0.02)


@pytest.mark.parametrize("config", [EXACT, HNSW, IVF])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.004, 0.0])
def test_a_filter_finds_as_many_as_there_are_and_only_those(config: AnnConfig, share: float) -> None:
    vectors, queries = clustered(3000), clustered(20, seed=1)
    allowed = np.random.default_rng(2).random(3000) < share
    _, rows = AnnIndex.build(vectors, config).search(queries, 60, allowed)
    there = min(60, int(allowed.sum()))
    assert ((rows >= 0).sum(axis=1) == there).all()
    assert allowed[rows[:, :there]].all()
    exact = -np.sort(-(queries @ vectors.T)[:, allowed], axis=1)[:, :there]
    found = np.sort(np.take_along_axis(queries @ vectors.T, rows[:, :there], 1), axis=1)[:, ::-1]
    assert (exact - found).mean() < 0.02 if there else rows.max() == -1
    with pytest.raises(ValueError, match="allowed has shape"):
        AnnIndex.build(vectors[:50], EXACT).search(queries, 5, allowed)


def test_the_rule_goes_by_size() -> None:
    config = AnnConfig()
    sizes = (0, config.exact_below - 1, config.exact_below, config.hnsw_below - 1, config.hnsw_below, 10**7)
    assert [config.kind(n) for n in sizes] == ["exact", "exact", "hnsw", "hnsw", "ivf", "ivf"]
    assert config.describe(1_000_000) == "IVF4000,SQ8 nprobe 125"
    with pytest.raises(ValueError, match="exact_below 5"):
        AnnConfig(exact_below=5, hnsw_below=4)


def test_more_than_there_is(tmp_path: Path) -> None:
    assert AnnIndex.build(clustered(5)).search(clustered(1), 50)[1].shape == (1, 5)
    (tmp_path / "x").write_bytes(b"no index")
    with pytest.raises(ValueError, match="not a FAISS index"):
        AnnIndex.load(tmp_path / "x")


@given(st.integers(0, 1000), st.integers(0, 30), st.floats(0, 1))
def test_mmr_is_a_choice_without_repeats(seed: int, k: int, balance: float) -> None:
    vectors = clustered(20, seed=seed)
    relevance = np.random.default_rng(seed).random(20)
    order = mmr(relevance, vectors, k, balance)
    assert len(order) == min(k, 20) == len(set(order.tolist()))
    if k:
        assert order[0] == np.argmax(relevance)


@given(st.integers(0, 1000), st.integers(1, 30), st.floats(0, 1))
def test_calibration_is_the_greedy_choice_of_its_formula(seed: int, k: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    relevance, category = rng.random(20), rng.integers(0, 4, 20)
    wanted = rng.dirichlet([0.5] * 4) * (rng.random(4) < 0.7)
    if wanted.sum() == 0:
        return
    wanted = wanted / wanted.sum()
    order = calibrated(relevance, category, wanted, k, weight)
    assert len(order) == min(k, 20) == len(set(order.tolist()))
    for place in range(len(order)):  # nothing that was left would have been better by the formula itself
        before, rest = order[:place], np.setdiff1d(np.arange(20), order[:place])
        mixes = [np.bincount(category[[*before, one]], minlength=4) / (place + 1) for one in rest]
        worth = (1 - weight) * relevance[rest] - weight * miscalibration(wanted, np.array(mixes))
        assert worth[rest == order[place]][0] >= worth.max() - 1e-9
    with pytest.raises(ValueError, match="weight"):
        calibrated(relevance, category, wanted, k, 1.5)


def test_mmr_balance() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    relevance = np.array([1.0, 0.9, 0.5])
    assert mmr(relevance, vectors, 3, 1.0).tolist() == [0, 1, 2]
    assert mmr(relevance, vectors, 3, 0.3).tolist() == [0, 2, 1]
    assert mmr(np.zeros(0), np.zeros((0, 2)), 3).tolist() == []
    with pytest.raises(ValueError, match="balance"):
        mmr(relevance, vectors, 3, 1.5)
