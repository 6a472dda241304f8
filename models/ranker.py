"""Learning to rank with LightGBM's lambdarank: pre-ranker and ranker are one code with two configurations.

Where rows were shown in a feed their position is given to LightGBM, which learns the position bias beside the trees and
leaves it out of the scores (unbiased lambdarank). Position 0 means that the row was not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.metrics import ndcg, ranks_from_scores


@dataclass(frozen=True)
class RankerConfig:
    trees: int = 300
    leaves: int = 15
    depth: int = -1
    learning_rate: float = 0.03
    min_rows_per_leaf: int = 200
    feature_share: float = 0.7
    row_share: float = 0.8
    l2: float = 5.0
    top: int = 20
    """Pairs are weighted by what swapping them does to NDCG at this place."""
    patience: int = 40
    seed: int = 7

    def __post_init__(self) -> None:
        if not 1 <= self.trees <= 300:
            raise ValueError(f"trees must be within 1 and 300, not {self.trees}: serving has a latency budget")
        if self.leaves < 2 or not 0 < self.learning_rate <= 1:
            raise ValueError(f"leaves >= 2 and learning_rate in (0, 1] are needed: {self}")


RANKER: Final = RankerConfig()
PRERANKER: Final = RankerConfig(trees=50, leaves=16, depth=4, learning_rate=0.1, top=200)


@dataclass(frozen=True)
class RankingRows:
    """Candidates of many requests, one request after another.

    `features` float32 [R, F]; `labels` int [R] (0 nothing, 1 click, 2 cart, 3 order); `groups` int [G] rows per
    request; `positions` int [R] (1-based place in the feed, 0 = not shown) or None without feeds.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.integer[Any]]
    groups: NDArray[np.integer[Any]]
    positions: NDArray[np.integer[Any]] | None = None

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.labels) == int(self.groups.sum()):
            counts = (len(self.features), len(self.labels), int(self.groups.sum()))
            raise ValueError(f"rows, labels and the sum of groups differ: {counts}")

    def requests(self, keep: NDArray[np.bool_]) -> RankingRows:
        """The rows of the requests where `keep` [G] is true."""
        rows = np.repeat(keep, self.groups)
        positions = None if self.positions is None else self.positions[rows]
        return RankingRows(self.features[rows], self.labels[rows], self.groups[keep], positions)


def train(
    rows: RankingRows, validation: RankingRows, config: RankerConfig, names: Sequence[str], *, threads: int = 2
) -> tuple[Any, list[dict[str, float]]]:
    """A booster and NDCG per iteration; stops early on `validation`, which lies after `rows` in time."""
    data = _dataset(rows, names)
    curve: dict[str, dict[str, list[float]]] = {}
    callbacks = [lightgbm.record_evaluation(curve), lightgbm.early_stopping(config.patience, verbose=False)]
    booster = lightgbm.train(
        parameters(config, threads), data, num_boost_round=config.trees,
        valid_sets=[lightgbm.Dataset(validation.features, validation.labels, group=validation.groups, reference=data)],
        valid_names=["validation"], callbacks=callbacks,
    )
    series = curve["validation"]
    history = [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]
    return booster, [{k.replace("@", "_at_"): float(v) for k, v in h.items()} for h in history]


def refit_on_all(rows: RankingRows, trees: int, config: RankerConfig, names: Sequence[str], *, threads: int = 2) -> Any:
    """Train again on everything with the number of trees that validation chose."""
    return lightgbm.train(parameters(config, threads), _dataset(rows, names), num_boost_round=max(1, trees))


def ndcg_of(rows: RankingRows, scores: NDArray[Any]) -> NDArray[np.float64]:
    """NDCG@10 of every request in which something was touched: clicked, put into a cart or bought."""
    out, at = [], 0
    for size in rows.groups:
        relevant = np.flatnonzero(rows.labels[at : at + size] >= 1)
        if len(relevant):
            out.append(ndcg(ranks_from_scores(scores[at : at + size], relevant), 10))
        at += size
    return np.array(out)


def importance(booster: Any) -> dict[str, float]:
    """Total gain of each feature as a share of all, largest first."""
    gain = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    shares = gain / max(float(gain.sum()), 1e-12)
    return dict(sorted(zip(booster.feature_name(), shares.tolist(), strict=True), key=lambda pair: -pair[1]))


def _dataset(rows: RankingRows, names: Sequence[str]) -> Any:
    return lightgbm.Dataset(
        rows.features, rows.labels, group=rows.groups, position=rows.positions, feature_name=list(names),
        free_raw_data=False,
    )


def parameters(config: RankerConfig, threads: int) -> dict[str, Any]:
    """What LightGBM is told."""
    return {
        "objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "lambdarank_truncation_level": config.top,
        "label_gain": [0, 1, 2, 3], "num_leaves": config.leaves, "max_depth": config.depth,
        "learning_rate": config.learning_rate, "min_data_in_leaf": config.min_rows_per_leaf,
        "feature_fraction": config.feature_share, "bagging_fraction": config.row_share, "bagging_freq": 1,
        "bagging_by_query": True, "lambda_l2": config.l2, "num_threads": threads, "seed": config.seed,
        "deterministic": True, "force_row_wise": True, "verbose": -1, "max_bin": 127,
    }
