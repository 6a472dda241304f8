"""Guardrails: looking often costs nothing, harm is seen, and the false alarm rate is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from bench.guardrails import canary
from models.rollout.guardrails import Arms, GuardConfig, Judged, Shadow, by_chance, judge, judge_alone, judge_shadow
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


def test_a_better_challenger_is_let_through() -> None:
    assert not any(canary(seed, effect=0.3)[0].breach for seed in range(20))


def test_a_challenger_that_degrades_every_other_answer_is_out_after_ten() -> None:
    arms = Arms(step_requests=10, step_gross={"degraded": 0.6, "dead_scores": 0.0})
    assert judge(arms, GuardConfig()).breach == "degraded"
    assert judge_alone(arms, GuardConfig()).breach == "degraded"
    assert not judge(Arms(step_requests=9, step_gross={"degraded": 1.0}), GuardConfig()).breach


def test_trouble_that_the_control_has_too_is_not_the_challengers() -> None:
    control = {"degraded": Sums(40, 100, 300, 60, 140, 190)}
    assert not judge(Arms({}, control, 50, {"degraded": 0.6}), GuardConfig()).breach


def test_a_gross_difference_that_may_be_chance_is_waited_out() -> None:
    busy = {"degraded": Sums(20, 20, 20, 5, 5, 5)}
    assert not judge(Arms({}, busy, 20, {"degraded": 0.5}), GuardConfig()).breach, "10 of 20 against 5 of 20"
    assert judge(Arms({}, busy, 20, {"degraded": 0.9}), GuardConfig()).breach == "degraded"


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
