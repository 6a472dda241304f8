"""The trade-off of relevance and variety: slates by balance, what they cost, and what the rule takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters import provenance
from bench import diversity as bench
from bench import numbers


def test_balance_one_is_the_order_of_relevance_and_less_moves_twins_apart() -> None:
    ranked = np.arange(100, 160)
    head = np.repeat(np.eye(30, dtype=np.float32), 2, axis=0)  # every product has a twin beside it
    slates = bench.slates(ranked, head)
    assert slates[1.0].tolist() == ranked[:20].tolist()
    assert len(np.unique((slates[0.5] - 100) // 2)) == 20
    assert all(len(np.unique(shown)) == 20 for shown in slates.values())


def values(costs: dict[float, float]) -> bench.Values:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    return {b: {"ndcg@20": base - cost, "diversity": np.full(400, 1 - b), "categories": np.full(400, 5.0)}
            for b, cost in costs.items()}  # fmt: skip


def test_the_rule_takes_the_most_variety_that_is_surely_cheap(tmp_path: Path) -> None:
    costs = {b: (1 - b) * 0.06 for b in bench.BALANCES}  # two percent of 0.53 is 0.0106: between 0.85 and 0.8
    rows = bench.rows_of(values(costs), dict.fromkeys(costs, 0.2), lose=0.02, seed=1)
    assert bench.choose(rows) == 0.85
    assert rows[0]["difference"]["mean"] == pytest.approx(0)
    bench.picture(rows, 0.85, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    told = {"command": "c", "seed": 1, "lose": 0.02, "rows": rows, "taken": 0.85, "serving": 0.9, "shoppers": 400}
    assert "**0.85**" in numbers.diversity(told | provenance.stamp())


def test_a_cheap_one_beyond_a_dear_one_is_not_taken() -> None:
    costs = dict.fromkeys(bench.BALANCES, 0.0) | {0.9: 0.1}
    assert bench.choose(bench.rows_of(values(costs), dict.fromkeys(costs, 0.2), lose=0.02, seed=1)) == 0.95
