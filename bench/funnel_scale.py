"""The whole funnel over HTTP at a million items: latency by stage, the knee, CPU against its floors, memory, recall.

    python -m bench.funnel_scale --save bench/results/funnel_scale.json        (about 7 minutes)
    python -m bench.funnel_scale --quick                                       (a small marketplace, under a minute)

Builds the marketplace, starts a Redis and a recommender of its own, raises an open-loop load until it no longer keeps
the P99 goal, doubles the load of the best step to see what an overload does, and measures the kernels alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from adapters.provenance import hardware, stamp
from bench.floors import floors, own_steps, prepared, recall, renewals
from bench.funnel_world import Scale, World, build, fill
from bench.samples import STAGES, columns_of, keep
from bench.served import DOOR, Served, Step, recommender, redis
from bench.simulation import Demand, Machine, most_rate, simulate

GOAL_MS: Final = 40.0
GOAL_RATE: Final = 100.0
RATES: Final = (20, 40, 60, 80, 100, 120, 140, 170, 200, 240)
QUICK: Final = Scale(items=3000, users=500, touched=500, trees=20, leaves=15)
COUNTED: Final = (
    "minimart_shed_total", "minimart_coalesced_total", "minimart_popular_cache_total",
    "minimart_popular_cache_age_seconds_sum", "minimart_popular_cache_age_seconds_count",
)  # fmt: skip


def measure(
    world: World, redis_url: str, rates: Sequence[float], seconds: float, workers: int, console: Console
) -> tuple[list[Step], Step, dict[str, Any]]:
    """The steps up to the first that misses the goal, the overload, and what else was seen."""
    seed = world.scale.seed
    with recommender(world.home, redis_url, workers=workers) as served:
        served.step(10, min(seconds, 3), world.users, seed)  # connections, caches and the first of everything
        steps = [*_up_to_the_knee(served, world, rates, seconds, console)]
        best = max(step.goodput for step in steps)
        console.print(f"overload: {2 * best:.0f}/s ...")
        before = served.counters(*COUNTED)
        overload = served.step(2 * best, seconds, world.users, seed + 99)
        after = served.counters(*COUNTED)
        http_ms = served.refused_ms(100 if seconds < 2 else 500)
        seen = {
            "own_ms": {"HTTP and validation (a refused request)": round(http_ms, 3)},
            "memory_mib": round(served.memory_mib()), "counters": after,
            "shed_in_overload": sum(after[n] - before.get(n, 0) for n in after if n.startswith("minimart_shed")),
        }  # fmt: skip
    return steps, overload, seen


def _up_to_the_knee(
    served: Served, world: World, rates: Sequence[float], seconds: float, console: Console
) -> list[Step]:
    steps = []
    for i, rate in enumerate(rates):
        step = served.step(rate, seconds, world.users, world.scale.seed + i)
        steps.append(step)
        shed = int((step.samples.status == 429).sum())
        console.print(f"{rate}/s: P99 {step.p99_ms:.0f} ms, {step.answered} answered, {shed} shed")
        if step.p99_ms > 2 * GOAL_MS or shed > 0.05 * len(step.samples.status):
            break
    return steps


def affordable_ms(workers: int, cores: int, driver_ms: float) -> float:
    """The CPU milliseconds that an answer may take where GOAL_RATE is to keep GOAL_MS: simulated, queues and nothing
    else."""

    def keeps(ms: float) -> bool:
        demand = Demand(python_ms=ms, kernel_ms=0.0, elsewhere_ms=driver_ms)
        machine = Machine(cores, workers, DOOR, pinned=workers > 1)
        outcome = simulate(machine, demand, GOAL_RATE, requests=6000)
        return outcome.shed == 0 and outcome.percentile(99) <= GOAL_MS

    return most_rate(keeps, high=100.0)


def report(
    world: World, steps: list[Step], overload: Step, seen: dict[str, Any], kernels: dict[str, float], row_ms: float,
    found: float, workers: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything as JSON values."""
    seed = world.scale.seed
    rows = [step.figures(seed) for step in steps]
    kept = [row for row in rows if not row["errors"] + row["shed"] and row["latency_ms"].get("p99", 1e9) <= GOAL_MS]
    knee = kept[-1] if kept else None
    peak, floor_ms = max(step.goodput for step in steps), sum(kernels.values())
    cpu, cores = (knee or rows[0])["cpu_ms_per_answer"], int(hardware()["cores"])
    driver_ms = float(np.median([1000 * step.driver_s / len(step.samples.status) for step in steps]))
    return {
        "command": "python -m bench.funnel_scale", "scale": asdict(world.scale), "workers": workers, "seed": seed,
        "build_s": world.build_s, "rows": rows, "knee": knee, "goal_p99_ms": GOAL_MS,
        "overload": overload.figures(seed) | {"goodput_of_peak": round(overload.goodput / max(peak, 1e-9), 3)},
        "goal_rate": GOAL_RATE, "driver_ms": round(driver_ms, 2),
        "affordable_ms": round(affordable_ms(workers, cores, driver_ms), 1),
        "floors_ms": kernels, "floor_ms": round(floor_ms, 2), "cpu_ms_per_answer": cpu,
        "cpu_over_floor": None if cpu is None else round(cpu / floor_ms, 2),
        "in_a_row_ms": row_ms, "cpu_over_row": None if cpu is None else round(cpu / row_ms, 2),
        "recall_at_1000": round(found, 4), **seen,
        **stamp(),
    }  # fmt: skip


def show(result: dict[str, Any], console: Console) -> None:
    """The figures as tables."""
    table = Table(title=f"{result['scale']['items']:,} items, {result['workers']} worker(s), as the client waits, ms")
    for heading in ("requests/s", "answered", "shed", "errors", "P50", "P95", "P99", "max", "CPU ms each"):
        table.add_column(heading, justify="right")
    for row in [*result["rows"], result["overload"]]:
        times = [f"{row['latency_ms'][p]:.1f}" if row["latency_ms"] else "-" for p in ("p50", "p95", "p99", "max")]
        counts = [f"{row['rate']:.0f}", *(str(row[name]) for name in ("answered", "shed", "errors"))]
        table.add_row(*counts, *times, str(row["cpu_ms_per_answer"]))
    console.print(table)
    at = result["knee"] or result["rows"][0]
    stages = Table(title=f"stages at {at['rate']:.0f}/s, ms")
    for heading in ("stage", "P50", "P95", "P99", "max"):
        stages.add_column(heading)
    for stage in STAGES:
        row = at["stages_ms"].get(stage) or {}
        stages.add_row(stage, *(f"{row[p]:.1f}" if row else "-" for p in ("p50", "p95", "p99", "max")))
    console.print(stages)
    for name, value in result["floors_ms"].items():
        console.print(f"floor: {name}: {value:.2f} ms")
    for name, value in result["own_ms"].items():
        console.print(f"alone: {name}: {value:.2f} ms")
    for name, value in result["renewal_ms"].items():
        console.print(f"renewal of the shelf, changed: {name}: {value:.2f} ms")
    console.print(
        f"CPU {result['cpu_ms_per_answer']} ms an answer = {result['cpu_over_floor']} x the floors' "
        f"{result['floor_ms']} ms ({result['cpu_over_row']} x their {result['in_a_row_ms']} ms one after the other; "
        f"{GOAL_MS:g} ms at {GOAL_RATE:g}/s would afford {result['affordable_ms']} ms in all); "
        f"recall@1000 {result['recall_at_1000']}; {result['memory_mib']} MiB; "
        f"overload: {result['overload']['goodput_of_peak']:.0%} of peak, 429 within "
        f"{result['overload']['shed_latency_ms'].get('p99', 0):.0f} ms (P99)"
    )


def save(result: dict[str, Any], steps: Sequence[Step], path: Path) -> None:
    """The result, and the raw samples of every step beside it."""
    columns: dict[str, Any] = {"stage_names": np.array(STAGES)}
    for step in steps:
        name = f"rate_{step.rate:.0f}"
        columns |= columns_of(name, step.samples) | {f"{name}_stages_ms": step.samples.stages_ms}
    keep(result, columns, path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.funnel_scale", description=__doc__)
    parser.add_argument("--items", type=int, default=Scale().items)
    parser.add_argument("--users", type=int, default=Scale().users)
    parser.add_argument("--workers", type=int, default=2, help="recommender processes (default 2)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load step (default 8)")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="requests per second, rising")
    parser.add_argument("--trees", action="store_true", help="trees serve, not their students: as on data where these "
                                                             "fall behind")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a small marketplace and two short steps, as a test does")
    parser.add_argument("--home", type=Path, help="an empty folder to build in; kept afterwards")
    parser.add_argument("--save", type=Path, help="write the result here and the raw samples beside it")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else Scale(
        items=options.items, users=options.users, touched=max(1, options.items // 20)
    )  # fmt: skip
    scale = replace(scale, students=not options.trees)
    rates = [10.0, 20.0] if options.quick else [float(rate) for rate in options.rates.split(",")]
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="minimart-funnel-") as folder:
        home = options.home or Path(folder)
        world = build(home, scale, console.print)
        with redis(home) as (redis_url, _):
            fill(world, redis_url, console.print)
            seconds = 1.0 if options.quick else options.seconds
            workers = 1 if options.quick else options.workers
            steps, overload, seen = measure(world, redis_url, rates, seconds, workers, console)
            console.print("kernels alone ...")
            kernels, row_ms = floors(world, redis_url, runs=20 if options.quick else 200)
            console.print("one answer alone ...")
            ready = prepared(world)
            seen["own_ms"] |= own_steps(world, redis_url, ready, runs=20 if options.quick else 200)
        found = recall(world, 1000, queries=20 if options.quick else 200)
        seen["renewal_ms"] = renewals(world, ready)
    result = report(world, steps, overload, seen, kernels, row_ms, found, workers)
    show(result, console)
    if options.save:
        save(result, [*steps, overload], options.save)
    errors = sum(row["errors"] for row in [*result["rows"], result["overload"]])
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
