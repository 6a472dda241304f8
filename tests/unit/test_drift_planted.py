"""Planted drifts are seen as what they are, and a stream without drift stays quiet: on a small marketplace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench import cbpe, detectors
from bench.cbpe import figures as cbpe_figures
from bench.cbpe import samples as cbpe_samples
from bench.detectors import ALWAYS, DETECTORS, NEVER, SUITE, Sample, drifting, figures, table
from bench.drift_planted import WORLDS, Start, start
from bench.drift_world import QUIET, Size
from models.drift.base import Level
from models.drift.baseline import Baseline
from models.drift.suite import Finding, inspect
from models.drift.verdict import Verdict, decide
from models.marketplace.config import Scenario
from settings import ROOT


@pytest.fixture(scope="module")
def begin() -> Start:
    return start(1, Size(shoppers=600, items=300, requests=450, burn_in=14, trees=30))


@pytest.fixture(scope="module")
def reference(begin: Start) -> Baseline:
    return begin.reference


def verdict(begin: Start, reference: Baseline, scenario: Scenario, windows: int = 2) -> Verdict:
    """The verdict after so many windows of `scenario`."""
    found = [inspect(reference, window) for window, _ in begin.windows(scenario, windows)]
    return decide(found[::-1])


@pytest.mark.parametrize(
    ("name", "kind", "breakage"),
    [
        ("taste_shift", "concept", False), ("traffic_mix", "data", False), ("seasonal", "label", False),
        ("price_level", "data", False), ("broken_units", "data", True), ("nulls", "data", True),
        ("silence", "operations", True),
    ],
)  # fmt: skip
def test_planted_drift_is_seen_as_what_it_is(
    begin: Start, reference: Baseline, name: str, kind: str, breakage: bool
) -> None:
    found = verdict(begin, reference, WORLDS[name][1])
    assert found.level == Level.DRIFT
    assert found.kinds[kind] == Level.DRIFT  # type: ignore[index]
    assert found.breakage == breakage
    assert found.reasons


def test_a_move_of_the_inputs_alone_is_no_concept_drift(begin: Start, reference: Baseline) -> None:
    for name in ("traffic_mix", "price_level"):
        assert verdict(begin, reference, WORLDS[name][1]).kinds["concept"] < Level.DRIFT


def test_weeks_without_drift_raise_no_alarm(begin: Start, reference: Baseline) -> None:
    found = [inspect(reference, window) for window, _ in begin.windows(QUIET, 8)]
    levels = [decide([now, before]).level for before, now in pairwise(found)]
    assert max(levels) < Level.DRIFT


def test_no_column_and_no_window_is_too_small_to_crash(begin: Start, reference: Baseline) -> None:
    window, _ = next(begin.windows(QUIET, 1))
    nothing = window.where(np.zeros(window.requests, bool))
    few = replace(window.where(np.arange(window.requests) < 1), asked=window.asked)
    for traffic in (nothing, few):
        findings = inspect(reference, traffic)
        shapes = [f for f in findings if f.detector in ("psi", "ks", "wasserstein", "js", "calibration_error")]
        assert {f.level for f in shapes if not f.subject.startswith("click_")} == {Level.INSUFFICIENT_DATA}
    assert decide([inspect(reference, few)]).level == Level.INSUFFICIENT_DATA
    assert decide([inspect(reference, nothing)]).kinds["operations"] == Level.DRIFT  # nobody came: that is silence
    assert decide([]).level == Level.INSUFFICIENT_DATA
    assert inspect(nothing.baseline(), window)  # an empty baseline is no crash either


def test_an_all_null_column_is_a_surge_of_nulls(begin: Start, reference: Baseline) -> None:
    window, _ = next(begin.windows(QUIET, 1))
    features = window.features.copy()
    features[:, window.names.index("item_log_price")] = np.nan
    broken = replace(window, features=features)
    found = {f.key: f for f in inspect(reference, broken)}
    assert found["data", "item_log_price", "null_share"].level == Level.DRIFT
    assert found["data", "item_log_price", "wasserstein"].level == Level.INSUFFICIENT_DATA
    assert decide([list(found.values())]).breakage


def test_another_ranker_is_not_compared_by_its_scores(begin: Start, reference: Baseline) -> None:
    window, _ = next(begin.windows(QUIET, 1))
    other = replace(window, meta={**window.meta, "ranker_version": "2"}, scores=window.scores + 9)
    found = [f for f in inspect(reference, other) if f.kind in ("prediction", "concept")]
    assert found
    assert {f.level for f in found} == {Level.INSUFFICIENT_DATA}


def test_drift_waits_for_the_second_window_and_breakage_does_not() -> None:
    moved = Finding("data", "item_log_price", "wasserstein", Level.DRIFT, True, 0.6)
    nulls = Finding("data", "asked from device", "null_share", Level.DRIFT, True, 0.4)
    quiet = Finding("data", "item_log_price", "wasserstein", Level.HEALTHY, True, 0.1)
    assert decide([[moved]]).level == Level.WARN
    assert decide([[moved], [quiet]]).level == Level.WARN
    assert decide([[moved], [moved]]).level == Level.DRIFT
    assert not decide([[moved], [moved]]).breakage
    assert decide([[moved]], persistence=1).level == Level.DRIFT
    assert decide([[nulls]]).level == Level.DRIFT
    assert decide([[nulls]]).breakage


def test_the_scoreboard_counts_what_its_dummies_do(begin: Start) -> None:
    samples = [Sample(1, "none", 0.0, i, 100, name, name == ALWAYS) for i in range(10) for name in DETECTORS]
    samples += drifting(begin, "nulls", 2)
    rows = {row["detector"]: row for row in figures(samples)}
    assert rows[ALWAYS]["false_alarms_per_30_windows"] == 30
    assert rows[NEVER]["false_alarms_per_30_windows"] == 0
    assert rows[NEVER]["drifts"]["nulls=0.3"]["seen"] == 0
    assert rows[SUITE]["drifts"]["nulls=0.3"]["seen"] == 1
    assert rows["null_share"]["drifts"]["nulls=0.3"]["median_requests"] < 700
    assert "missed" in table([rows[NEVER]])


def test_the_estimate_follows_inputs_and_not_meaning(begin: Start) -> None:
    rows = [row for world in ("price_level", "taste_shift") for row in cbpe_samples(begin, world, 3)]
    found = {row["world"]: row["error_percent"] for row in cbpe_figures(rows)}
    assert found["price_level"]["cbpe"] < 12
    assert found["taste_shift"]["cbpe"] > 15
    assert found["taste_shift"]["cbpe, trued up"] < found["taste_shift"]["cbpe"]


@pytest.mark.parametrize(("path", "render"), [(detectors.OUT, detectors.table), (cbpe.OUT, cbpe.table)])
def test_docs_show_what_was_measured(path: Path, render: Callable[[list[dict[str, object]]], str]) -> None:
    result = json.loads(path.read_text())
    assert render(result["rows"]) in (ROOT / "docs" / "drift.md").read_text(), f"put in the table of {path.name}"
    assert {"hardware", "commit", "seed", "at"} <= set(result)


def test_worlds_cover_what_the_cases_name() -> None:
    named = {"taste_shift", "traffic_mix", "seasonal", "price_level", "broken_units", "nulls"}
    assert named <= set(WORLDS)
