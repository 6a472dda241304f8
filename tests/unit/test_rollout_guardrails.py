"""Guardrails: looking often costs nothing, harm is seen, and the false alarm rate is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from bench.guardrails import canary
from models.rollout.guardrails import (
    METRICS,
    Arms,
    GuardConfig,
    Judged,
    Shadow,
    by_chance,
    judge,
    judge_alone,
    judge_shadow,
)
from models.rollout.sequential import Sums, compare, e_value, half_width


def test_two_equal_arms_are_rolled_back_in_at_most_one_of_twenty_runs() -> None:
    false = sum(bool(canary(seed)[0].breach) for seed in range(200))
    assert false <= 10


@pytest.mark.parametrize(
    ("harm", "guards"),
    [({"effect": -0.5}, {"clicks", "orders"}), ({"slower": 0.7}, {"latency"}), ({"degraded": 0.2}, {"degraded"})],
)
def test_harm_is_found(harm: dict[str, float], guards: set[str]) -> None:
    found = [canary(seed, **harm) for seed in range(20)]
    assert sum(judged.breach in guards for judged, _ in found) >= 19
    assert np.median([requests for _, requests in found]) < 1800


def test_the_guards_share_one_false_alarm_rate() -> None:
    assert sum(metric.share for metric in METRICS) == pytest.approx(1)


def test_clicks_are_compared_with_everyone_whom_the_champion_answers() -> None:
    few, worse = Sums(90, 100, 120, 380, 2400, 480), Sums(90, 100, 120, 300, 1640, 390)
    many = Sums(1700, 1900, 2300, 7220, 45600, 9100)
    alone, pooled = (judge(Arms({"clicks": worse}, {"clicks": few}, more), GuardConfig())
                     for more in ({}, {"clicks": many}))  # fmt: skip
    assert not alone.breach, "a hundred answers on both sides are not enough"
    assert pooled.breach == "clicks"
    assert pooled.why.startswith("clicks: canary 3, champion 3.8, p ")
    orders = judge(Arms({"orders": worse}, {"orders": few}, {"clicks": many}), GuardConfig())
    assert orders.figures["orders"]["control"] == few.ratio, "other outcomes have the control alone"


def test_a_better_challenger_is_let_through() -> None:
    assert not any(canary(seed, effect=0.3)[0].breach for seed in range(20))


def test_a_challenger_that_degrades_every_other_answer_is_out_after_ten() -> None:
    arms = Arms(step_requests=10, step_gross={"degraded": 0.6, "dead_scores": 0.0}, step_control_requests=12)
    assert judge(arms, GuardConfig()).breach == "degraded"
    assert judge_alone(arms, GuardConfig()).breach == "degraded"
    few = Arms(step_requests=9, step_gross={"degraded": 1.0}, step_control_requests=12)
    assert not judge(few, GuardConfig()).breach


@pytest.mark.parametrize(
    ("canary", "control", "breach"),
    [
        ((50, 0.6), (100, 0.6), ""),  # trouble that the control has too is not the challenger's
        ((20, 0.5), (20, 0.25), ""),  # may be chance
        ((20, 0.9), (20, 0.25), "degraded"),
        ((12, 1.0), (0, 0.0), ""),  # nothing to compare with yet
    ],
)
def test_a_gross_difference_is_one_to_the_control_of_the_same_seconds(
    canary: tuple[int, float], control: tuple[int, float], breach: str
) -> None:
    arms = Arms({}, {}, {}, canary[0], {"degraded": canary[1]}, control[0], {"degraded": control[1]})
    assert judge(arms, GuardConfig()).breach == breach


@pytest.mark.parametrize("counts", [(10, 20, 5, 20), (3, 10, 0, 40), (40, 40, 1, 2), (0, 5, 0, 5)])
def test_the_chance_of_a_gross_difference_is_fishers(counts: tuple[int, int, int, int]) -> None:
    bad, n, control_bad, control_n = counts
    table = [[bad, n - bad], [control_bad, control_n - control_bad]]
    assert by_chance(*counts) == pytest.approx(scipy.stats.fisher_exact(table, "greater").pvalue)


@pytest.mark.parametrize(
    ("shadow", "breach"),
    [
        (Shadow(100, median_ms=20, champion_median_ms=18, overlap=0.4), ""),
        (Shadow(100, errors=0.1), "errors"), (Shadow(100, dead_scores=0.1), "dead_scores"),
        (Shadow(100, degraded=0.5), "degraded"), (Shadow(100, degraded=0.5, champion_degraded=0.4), ""),
        (Shadow(20, degraded=0.5), ""), (Shadow(100, median_ms=90, champion_median_ms=20), "latency"),
        (Shadow(3, errors=1.0), ""),
    ],
)
def test_shadow_scores_are_judged_without_outcomes(shadow: Shadow, breach: str) -> None:
    assert judge_shadow(shadow, GuardConfig()).breach == breach


def test_no_data_says_nothing() -> None:
    nothing = Sums(0, 0, 0, 0, 0, 0)
    found = compare(nothing, nothing, bad=1, margin=0, tau=0.1, alpha=0.05)
    assert found.p == 1.0
    assert math.isinf(found.high)
    assert judge(Arms(), GuardConfig()) == Judged(figures=judge(Arms(), GuardConfig()).figures)


def test_the_e_value_grows_with_harm_and_stays_small_without() -> None:
    assert e_value(0.0, 0.01, 0.2) <= 1
    assert e_value(-1.0, 0.01, 0.2) < 0.1
    assert e_value(0.5, 0.01, 0.2) > 100
    assert half_width(0.01, 0.2, 0.05) > half_width(0.0001, 0.2, 0.05)
