"""The trade-off of relevance and variety: slates by strength, what they cost, and what is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from adapters import provenance
from bench import diversity as bench
from bench import numbers
from pipelines.candidates import Retrieval

RANKED = np.arange(100, 160)


class TwinsOfTwoKinds:
    """Sixty products in pairs of twins; the first forty are of category 0, the others of 1; the shopper likes both."""

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return np.repeat(np.eye(30, dtype=np.float32), 2, axis=0)[rows - 100]

    def categories(self, _: int, rows: np.ndarray) -> np.ndarray:
        return (rows >= 140).astype(np.int64)

    def liked(self, _: int) -> np.ndarray:
        return np.array([0, 1] * 5)


WORLD = cast("Retrieval", TwinsOfTwoKinds())


def test_balance_one_is_the_order_of_relevance_and_less_moves_twins_apart() -> None:
    slates = {balance: bench.slate(WORLD, 0, RANKED, "mmr", balance) for balance in bench.SWEEPS["mmr"]}
    assert slates[1.0].tolist() == RANKED[:20].tolist()
    assert len(np.unique((slates[0.5] - 100) // 2)) == 20
    assert all(len(np.unique(shown)) == 20 for shown in slates.values())


def test_the_heavier_the_mix_the_nearer_the_categories_are_to_the_liked_ones() -> None:
    found = []
    for weight in bench.SWEEPS["category_mix"]:
        codes = WORLD.categories(0, bench.slate(WORLD, 0, RANKED, "category_mix", weight))
        found.append(bench.away(codes, WORLD.liked(0)))
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] / 4
    assert found[0] > 0.5
    assert np.isnan(bench.away(np.zeros(20, np.int64), np.zeros(2, np.int64))), "two clicks are no mix"


def values(costs: dict[float, float]) -> dict[float, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    away = np.where(np.arange(400) < 40, np.nan, 0.4)
    return {s: {"ndcg@20": base - cost, "diversity": np.full(400, 1 - s), "categories": np.full(400, 5.0),
                "miscalibration": away} for s, cost in costs.items()}  # fmt: skip


def test_the_strongest_is_taken_that_is_surely_cheap(tmp_path: Path) -> None:
    costs = {b: (1 - b) * 0.06 for b in bench.SWEEPS["mmr"]}  # two percent of 0.53 is 0.0106: between 0.85 and 0.8
    mmr = bench.sweep_of(values(costs), dict.fromkeys(costs, 0.2), lose=0.02, seed=1)
    assert mmr["taken"] == 0.85
    assert mmr["rows"][0]["difference"]["mean"] == pytest.approx(0)
    free = dict.fromkeys(bench.SWEEPS["category_mix"], 0.0)
    mix = bench.sweep_of(values(free), dict.fromkeys(free, 0.2), lose=0.02, seed=1)
    assert mix["taken"] == 0.4
    sweeps = {"mmr": mmr, "category_mix": mix}
    bench.picture(sweeps, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    told: dict[str, Any] = {"command": "c", "seed": 1, "lose": 0.02, "sweeps": sweeps, "serving": bench.SERVING,
                            "shoppers": 400}  # fmt: skip
    text = numbers.diversity(told | provenance.stamp())
    assert "**0.85**" in text
    assert "**0.4**" in text


def test_a_cheap_one_beyond_a_dear_one_is_not_taken() -> None:
    costs = dict.fromkeys(bench.SWEEPS["mmr"], 0.0) | {0.9: 0.1}
    assert bench.sweep_of(values(costs), dict.fromkeys(costs, 0.2), lose=0.02, seed=1)["taken"] == 0.95
