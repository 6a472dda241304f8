"""The capacity simulation against what queueing theory knows, and the arithmetic that carries it on."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.capacity_model import Measured, Prices, at_scale, breaks_first, carried, demand_of, power_law
from bench.capacity_report import picture, result, show
from bench.served import DOOR
from bench.simulation import Demand, Machine, most_rate, simulate
from services.recommender.admission import AdmissionConfig

LONE = Demand(python_ms=4.0, kernel_ms=0.0)
OPEN = AdmissionConfig(at_once=1, most=10**6, target_ms=1e9)
"""Lets everybody in, one after the other."""


def test_a_lone_worker_is_an_m_d_1_queue() -> None:
    outcome = simulate(Machine(1, 1, OPEN), LONE, rate=150, requests=10_000)
    load = 0.6
    expected = 4.0 + 4.0 * load / (2 * (1 - load))  # Pollaczek and Khinchine, constant service
    assert outcome.latency_ms.mean() == pytest.approx(expected, rel=0.1)
    assert outcome.busy_cores == pytest.approx(load, rel=0.03)
    assert outcome.shed == 0


def test_exponential_service_is_an_m_m_1_queue() -> None:
    shape = np.random.default_rng(1).exponential(1, 50_000)
    demand = Demand(python_ms=4.0, kernel_ms=0.0, shape=shape / shape.mean())
    outcome = simulate(Machine(1, 1, OPEN), demand, rate=125, requests=15_000)
    assert outcome.latency_ms.mean() == pytest.approx(4.0 / (1 - 0.5), rel=0.1)


def test_pinned_workers_wait_as_if_each_had_a_machine_of_its_own() -> None:
    alone = simulate(Machine(1, 1, OPEN), LONE, rate=60, requests=20_000)
    pinned = simulate(Machine(2, 2, OPEN, pinned=True), LONE, rate=120, requests=40_000)
    assert pinned.percentile(50) == pytest.approx(alone.percentile(50), rel=0.05)
    assert pinned.percentile(99) == pytest.approx(alone.percentile(99), rel=0.1)


def test_without_load_a_request_takes_what_it_needs() -> None:
    demand = Demand(python_ms=4.0, kernel_ms=3.0, wait_ms=2.0, record_ms=5.0, elsewhere_ms=0.0)
    outcome = simulate(Machine(cores=4, workers=1), demand, rate=0.5, requests=200)
    assert outcome.percentile(50) == pytest.approx(9.0, abs=0.01)


def test_an_overload_is_shed_and_the_funnel_stays_full() -> None:
    door = AdmissionConfig(at_once=1, most=8, target_ms=1e9)
    outcome = simulate(Machine(2, 1, door), LONE, rate=500, requests=5000)
    assert outcome.shed / 5000 == pytest.approx(0.5, abs=0.03)
    assert outcome.percentile(99) <= 8 * 4.0 + 1e-6


def test_the_door_of_the_recommender_keeps_a_standing_queue_short() -> None:
    door = AdmissionConfig(at_once=1, most=64, target_ms=20)
    kept = simulate(Machine(2, 1, door), LONE, rate=500, requests=5000)
    without = simulate(Machine(2, 1, replace(door, target_ms=1e9)), LONE, rate=500, requests=5000)
    assert kept.shed == pytest.approx(without.shed, rel=0.1), "no answer is lost by it"
    assert kept.percentile(50) < 0.25 * without.percentile(50)


def test_what_a_worker_does_anyway_takes_its_share_and_ends_with_the_run() -> None:
    demand = replace(LONE, standing_ms=100.0)
    outcome = simulate(Machine(1, 1, OPEN), demand, rate=50, requests=4000)
    assert outcome.busy_cores == pytest.approx(50 * 0.004 + 0.1, rel=0.05)
    assert outcome.percentile(50) == pytest.approx(4.0, abs=0.5), "it gives way after each piece"
    assert outcome.percentile(99) > simulate(Machine(1, 1, OPEN), LONE, rate=50, requests=4000).percentile(99)


def test_kernels_run_beside_python_and_workers_beside_one_another() -> None:
    both = Demand(python_ms=2.0, kernel_ms=6.0)
    kept = {
        machine: most_rate(lambda r, m=machine: simulate(m, both, r, requests=400).percentile(99) < 60)
        for machine in (Machine(1, 1), Machine(2, 1), Machine(2, 2))
    }
    assert kept[Machine(2, 1)] > 1.5 * kept[Machine(1, 1)]
    python_only = Demand(python_ms=8.0, kernel_ms=0.0)
    one, two = (
        most_rate(lambda r, w=workers: simulate(Machine(2, w), python_only, r, requests=400).percentile(99) < 60)
        for workers in (1, 2)
    )
    assert two > 1.5 * one, "an interpreter uses one core"


def test_the_highest_rate_is_found() -> None:
    assert most_rate(lambda rate: rate <= 731) == pytest.approx(731, rel=0.03)
    assert most_rate(lambda _: False) == 0
    assert most_rate(lambda _: True) >= 90_000


@pytest.mark.parametrize("wrong", [{"python_ms": -1.0, "kernel_ms": 2.0}, {"python_ms": 0.0, "kernel_ms": 0.0}])
def test_demands_check_themselves(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Demand(**wrong)


def seen(**changes: float) -> Measured:
    values = {
        "cpu_ms": 12.0, "standing_ms": 20.0, "kernels_ms": 6.0, "driver_ms": 0.5, "worker_mib": 512.0,
        "redis_cpu_ms": 0.1, "redis_bytes": 20_000.0, "record_bytes": 100_000.0, "answer_bytes": 3000.0,
    }  # fmt: skip
    return Measured(latency_ms=np.full(50, 10.0), **(values | changes))


def test_what_a_request_needs_adds_up_to_what_was_measured() -> None:
    late = demand_of(seen(cpu_ms=12.0), driver=False)
    assert (late.python_ms + late.kernel_ms, late.record_ms, late.wait_ms, late.standing_ms) == (10.0, 2.0, 0.0, 20.0)
    waiting = demand_of(seen(cpu_ms=7.0), driver=True)
    assert (waiting.python_ms, waiting.kernel_ms, waiting.wait_ms) == (1.0, 6.0, 3.0)
    assert (waiting.record_ms, waiting.elsewhere_ms) == (0.0, 0.5)


def test_more_cores_need_fewer_machines_and_the_target_is_met_by_them() -> None:
    rows = carried(seen(), Prices(), DOOR, requests=300)
    assert [row["cores"] for row in rows] == [2, 4, 8, 16]
    for fewer, more in itertools.pairwise(rows):
        assert more["rps_of_one"] > fewer["rps_of_one"]
        assert more["replicas"] < fewer["replicas"]
    for row in rows:
        assert row["replicas"] * row["rps_of_one"] * 2 / 3 >= 99_800  # rps_of_one is rounded


def test_parts_are_ordered_by_when_they_are_full() -> None:
    rows = breaks_first(seen(), one_machine_rps=150)
    assert [row["full_at_rps"] for row in rows] == sorted(row["full_at_rps"] for row in rows)
    assert rows[0]["part"] == "one recommender machine"
    kafka = next(row for row in rows if "Kafka" in row["part"])
    assert (kafka["full_at_rps"], kafka["needed_for_target"]) == (1000, 100)


def test_a_power_law_is_found_and_needs_three_points() -> None:
    law = power_law([1e3, 1e4, 1e5, 1e6], [3 * n**1.25 for n in (1e3, 1e4, 1e5, 1e6)])
    assert (law.scale, law.power, law.r2) == pytest.approx((3, 1.25, 1))
    assert law.at(1e7) == pytest.approx(3 * 1e7**1.25)
    with pytest.raises(ValueError, match="at least three"):
        power_law([1, 2], [1, 2])


def test_a_hundred_million_shoppers_on_paper() -> None:
    builds = [{"items": n, "cpu_s": n / 1e4} for n in (1e4, 1e5, 1e6)]
    paper = at_scale({"online store": 1000, "ids": 256}, {"index": 72}, builds)
    assert paper["users_gib"]["online store"] == pytest.approx(93.1)
    assert (paper["store_shards"], paper["item_shards"], paper["fits_one_worker"]) == (4, 1, False)
    assert paper["build_cpu_hours"] == pytest.approx(1000 / 3600, abs=0.01)


def test_a_result_holds_the_comparison_the_machines_and_the_paper(tmp_path: Path) -> None:
    rows = {
        workers: [
            {"rate": rate, "requests": 100, "answered": 100, "errors": 0, "latency_ms": {"p50": 10.0, "p99": 20.0}}
            for rate in (10.0, 40.0)
        ]
        for workers in (1, 2)
    }  # fmt: skip
    sizes = ({"online store": 1000.0}, {"index": 72.0})
    builds = [{"items": n, "cpu_s": n / 1e4} for n in (1e4, 1e5, 1e6)]
    found = result(seen(), {"ranker (ONNX)": 6.0}, rows, 2, sizes, builds, 7, {"items": 10}, Prices())
    assert [(row["workers"], row["rate"]) for row in found["compared"]] == [(1, 10), (1, 40), (2, 10), (2, 40)]
    assert 0.8 < found["median_off_by_factor"] < 1.3
    assert found["machines"][0]["rps_of_one"] > 50
    json.dumps(found)
    show(found, Console(file=io.StringIO()))
    picture(found, tmp_path / "capacity.png")
    assert (tmp_path / "capacity.png").stat().st_size > 5000
