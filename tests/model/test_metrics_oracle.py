"""The metrics against ranx (compiles for a minute, so it is not a unit test)."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics import per_shopper, ranks_from_scores

NAMES = ("recall@10", "ndcg@10", "map@10", "mrr@10", "hit_rate@10", "recall@50", "ndcg@50")


@pytest.mark.parametrize("seed", range(3))
def test_against_ranx(seed: int) -> None:
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(200.0), (40, 1)), axis=1)
    relevant = [rng.choice(200, rng.integers(1, 15), replace=False) for _ in range(40)]
    ours = per_shopper([ranks_from_scores(s, r) for s, r in zip(scores, relevant, strict=True)], NAMES)
    qrels = ranx.Qrels({f"q{u:03}": {f"d{i}": 1 for i in r} for u, r in enumerate(relevant)})
    run = ranx.Run({f"q{u:03}": {f"d{i}": float(s) for i, s in enumerate(row)} for u, row in enumerate(scores)})
    oracle = ranx.evaluate(qrels, run, list(NAMES), return_mean=False)
    for name in NAMES:
        np.testing.assert_allclose(ours[name], oracle[name], atol=1e-12, err_msg=name)
