"""The ranker: it learns, it leaves the position bias out, its ONNX twin gives the same scores."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from models import onnx_export
from models.ranker import PRERANKER, RANKER, RankerConfig, RankingRows, importance, refit_on_all, train
from settings import ROOT

NAMES = [f"f{i}" for i in range(6)]


def planted(requests: int, seed: int, *, biased: bool = False) -> RankingRows:
    """30 products each; feature 0 attracts, feature 1 is noise that (if biased) decides the position."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(requests * 30, 6)).astype(np.float32)
    place = np.argsort(np.argsort(-features[:, 1].reshape(requests, 30), axis=1), axis=1).ravel() + 1
    chance = 1 / (1 + np.exp(-(1.5 * features[:, 0] - 1.0)))
    if biased:
        chance *= (1 + 0.5 * (place - 1)) ** -1.0
    features[rng.random(features.shape) < 0.05] = np.nan
    labels = (rng.random(len(chance)) < chance).astype(np.int64)
    return RankingRows(features, labels, np.full(requests, 30), place if biased else None)


def test_learns_and_exports_exactly() -> None:
    booster, history = train(planted(300, 0), planted(80, 1), PRERANKER, NAMES, threads=1)
    assert next(iter(importance(booster))) == "f0"
    assert history[-1]["ndcg_at_10"] > 0.7
    rows = np.vstack([planted(50, 2).features, np.full((1, 6), np.nan, dtype=np.float32)])
    scores = onnx_export.run(onnx_export.trees(booster, 6), {"features": rows})
    assert scores.shape == (len(rows), 1)
    assert onnx_export.max_difference(scores[:, 0], booster.predict(rows)) < 1e-4


def test_position_bias_is_learned_apart() -> None:
    rows = planted(1500, 3, biased=True)
    config = RankerConfig(trees=60, leaves=8, learning_rate=0.1, min_rows_per_leaf=60)
    aware = refit_on_all(rows, 60, config, NAMES, threads=1)
    unaware = refit_on_all(RankingRows(rows.features, rows.labels, rows.groups), 60, config, NAMES, threads=1)
    assert importance(aware)["f1"] < 0.6 * importance(unaware)["f1"]


def test_same_seed_same_trees() -> None:
    rows = planted(100, 4)
    texts = [refit_on_all(rows, 20, RANKER, NAMES, threads=1).model_to_string() for _ in range(2)]
    assert texts[0] == texts[1]


def test_rows_and_configurations_check_themselves() -> None:
    with pytest.raises(ValueError, match="differ"):
        RankingRows(np.zeros((3, 6), np.float32), np.zeros(3, np.int64), np.array([2]))
    with pytest.raises(ValueError, match="latency budget"):
        RankerConfig(trees=1000)
    kept = planted(5, 5, biased=True).requests(np.array([True, False, True, False, False]))
    assert len(kept.labels) == 60
    assert kept.groups.tolist() == [30, 30]


CONVERT = """
import hashlib, lightgbm, numpy
from models import onnx_export
x = numpy.random.default_rng(0).normal(size=(500, 3))
booster = lightgbm.train({"verbose": -1, "num_threads": 1, "deterministic": True}, lightgbm.Dataset(x, x[:, 0]), 3)
print(hashlib.sha256(onnx_export.trees(booster, 3)).hexdigest())
"""


def test_the_same_trees_are_the_same_bytes_whatever_the_hash_seed() -> None:
    """With seed 20 a set of the converter's is read in another order than with seed 1."""
    digests = {
        subprocess.run([sys.executable, "-c", CONVERT], env={**os.environ, "PYTHONHASHSEED": seed}, cwd=ROOT,
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "20")
    }  # fmt: skip
    assert len(digests) == 1
