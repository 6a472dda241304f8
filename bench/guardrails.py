"""The guardrails' false alarms and power, simulated: how often is a canary rolled back, and after how many answers?

    python -m bench.guardrails --shoppers 600 --save bench/results/guardrails.json

Shoppers differ in how often they come and how they click (gamma and beta), so answers of one shopper hang together. One
canary and one control of SHOPPERS each, with OTHERS times as many whom the champion answers beside them, are looked at
LOOKS times; the first broken guard ends the run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.provenance import stamp
from models.rollout.guardrails import Arms, GuardConfig, Judged, judge
from models.rollout.sequential import Sums

SHOPPERS: Final = 300
OTHERS: Final = 18  # a canary and a control of 5 % each
LOOKS: Final = 25
HARMS: Final[tuple[dict[str, float], ...]] = (
    {}, {"effect": -0.1}, {"effect": -0.2}, {"effect": -0.35}, {"effect": -0.5}, {"effect": -0.8}, {"effect": 0.2},
    {"slower": 0.4}, {"slower": 0.7}, {"degraded": 0.05}, {"degraded": 0.2},
)  # fmt: skip


def canary(
    seed: int, effect: float = 0.0, slower: float = 0.0, degraded: float = 0.0, *, shoppers: int = SHOPPERS
) -> tuple[Judged, int]:
    """One run: what was judged last, and how many answers the canary had given by then.

    `effect` is relative, on clicks and orders; `slower` is added to ln(milliseconds); `degraded` to the share of 1 %.
    """
    rng = np.random.default_rng(seed)
    others = rng.gamma(0.7, 1 / 0.7, OTHERS * shoppers), rng.beta(2, 12, OTHERS * shoppers)
    asked, clicked = np.zeros(OTHERS * shoppers), np.zeros(OTHERS * shoppers)
    active, likes = rng.gamma(0.7, 1 / 0.7, 2 * shoppers), rng.beta(2, 12, 2 * shoppers)
    buys, pace = rng.beta(1, 80, 2 * shoppers), rng.normal(3, 0.2, 2 * shoppers)
    ours = np.arange(2 * shoppers) % 2 == 1
    n, clicks, orders, latency, bad = (np.zeros(2 * shoppers) for _ in range(5))
    judged = Judged()
    for _ in range(LOOKS):
        new = rng.poisson(0.3 * active)
        n += new
        clicks += rng.binomial(new, np.where(ours, likes * (1 + effect), likes).clip(0, 1))
        orders += rng.binomial(new, np.where(ours, buys * (1 + effect), buys).clip(0, 1))
        latency += new * (pace + np.where(ours, slower, 0)) + np.sqrt(new) * rng.normal(0, 0.5, 2 * shoppers)
        bad += rng.binomial(new, np.where(ours, 0.01 + degraded, 0.01))
        more = rng.poisson(0.3 * others[0])
        asked += more
        clicked += rng.binomial(more, others[1])
        champion = _sums(np.concatenate([n[~ours], asked]), np.concatenate([clicks[~ours], clicked]))
        outcomes = {"clicks": clicks, "orders": orders, "latency": latency, "degraded": bad, "dead_scores": 0 * bad}
        arms = [{k: _sums(n[arm], y[arm]) for k, y in outcomes.items()} for arm in (ours, ~ours)]
        judged = judge(Arms(arms[0], arms[1], {"clicks": champion}, int(n[ours].sum())), GuardConfig())
        if judged.breach:
            break
    return judged, int(n[ours].sum())


def _sums(n: NDArray[np.float64], y: NDArray[np.float64]) -> Sums:
    n, y = n[n > 0], y[n > 0]
    return Sums(len(n), *(float(column.sum()) for column in (n, n * n, y, y * y, y * n)))


def measure(runs: int, power_runs: int, shoppers: int) -> list[dict[str, Any]]:
    """One row per harm, with every run's outcome as the raw sample."""
    rows = []
    for harm in HARMS:
        found = [canary(seed, shoppers=shoppers, **harm) for seed in range(power_runs if harm else runs)]
        ended = [requests for judged, requests in found if judged.breach]
        rows.append({
            "harm": harm or "none (A/A)", "runs": len(found), "rolled_back": len(ended),
            "share": round(len(ended) / len(found), 4),
            "median_canary_answers_until": float(np.median(ended)) if ended else None,
            "samples": [[judged.breach, requests] for judged, requests in found],
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="runs without harm")
    parser.add_argument("--power-runs", type=int, default=50, help="runs of each harm")
    parser.add_argument("--shoppers", type=int, default=SHOPPERS, help="per arm")
    parser.add_argument("--save", type=Path, help="write the result here, as JSON")
    chosen = parser.parse_args()
    rows = measure(chosen.runs, chosen.power_runs, chosen.shoppers)
    for row in rows:
        print(f"{row['harm']!s:24} {row['rolled_back']:4} of {row['runs']}  {row['median_canary_answers_until']}")
    if chosen.save:
        result = {
            "title": f"{chosen.shoppers} shoppers in canary and control each, {OTHERS} times as many beside them, "
                     f"{LOOKS} looks, false alarms at most {GuardConfig().alpha:.0%}",
            "command": f"python -m bench.guardrails --shoppers {chosen.shoppers}", "rows": rows, **stamp(),
        }  # fmt: skip
        chosen.save.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
