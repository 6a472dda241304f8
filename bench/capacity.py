"""How many machines do 100,000 requests a second need? Measured here, simulated there, and compared where both can be.

    make capacity                                  (about 5 minutes, alone on the machine)
    python -m bench.capacity --quick               (a small marketplace, under two minutes)

Builds a marketplace, takes what one request needs from a nearly idle worker and from the kernels alone, and loads one
and two workers open loop. The simulation must foretell those loads before it is asked about machines that are not here.
Writes the result as JSON, as a picture, and the raw samples.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
import redis as redis_client
from rich.console import Console

from adapters.provenance import hardware
from bench.capacity_model import Measured, Prices
from bench.capacity_report import picture, result, show
from bench.clusters import clustered
from bench.floors import floors
from bench.funnel_world import Scale, World, build, fill
from bench.load import requests
from bench.samples import columns_of, keep
from bench.served import ROUTE, Served, Step, recommender, redis
from models.ann_index import AnnConfig, AnnIndex

IDLE_RATE: Final = 8.0
STANDING_S: Final = 60.0
"""A whole minute: once in each all item windows decay."""
RATES: Final = (10, 20, 30, 40, 60, 80, 100, 120)
BUILD_SIZES: Final = (50_000, 100_000, 200_000)
QUICK: Final = Scale(items=3000, users=500, touched=500, trees=20, leaves=15)
PRODUCTION_LIKE: Final = Scale(items=100_000, users=20_000, touched=20_000)
ALONE: Final = {"recommender_cache_ms": "0", "recommender_coalesce": "false"}
"""Nothing is shared between requests: shared ones would cost less than what is carried on."""


class Watched:
    """What Redis used while it was watched, over the requests of that time."""

    def __init__(self, url: str, pid: int) -> None:
        self._client, self._process = redis_client.Redis.from_url(url), psutil.Process(pid)
        self._cpu, self._bytes = self._now()

    def per_request(self, n: int) -> tuple[float, float]:
        """CPU milliseconds and bytes out."""
        cpu, sent = self._now()
        return 1000 * (cpu - self._cpu) / n, (sent - self._bytes) / n

    def used_bytes(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def _now(self) -> tuple[float, int]:
        return sum(self._process.cpu_times()[:2]), int(self._client.info("stats")["total_net_output_bytes"])


def load_steps(
    served: Served, world: World, rates: Sequence[float], seconds: float, console: Console
) -> list[Step]:
    """Rising steps, until far more is shed than answered is of use."""
    steps = []
    for i, rate in enumerate(rates):
        step = served.step(rate, seconds, world.users, world.scale.seed + 10 + i)
        steps.append(step)
        console.print(f"{rate:g}/s: P50 {np.median(step.samples.latency_ms):.0f} ms, P99 {step.p99_ms:.0f} ms, "
                      f"{step.answered} of {len(step.samples.status)} answered")
        if step.answered < 0.7 * len(step.samples.status):
            break
    return steps


def idle(
    served: Served, world: World, address: tuple[str, int], kernels_ms: float, seconds: float, standing_s: float
) -> Measured:
    """One request's needs, from a worker that has nothing else to do."""
    served.step(IDLE_RATE, 3, world.users, 1)
    standing_ms = served.standing_ms(standing_s)
    watched = Watched(*address)
    step = served.step(IDLE_RATE, seconds, world.users, 2)
    driver_ms = 1000 * step.driver_s / len(step.samples.status)
    redis_cpu_ms, redis_bytes = watched.per_request(len(step.samples.status))
    ok = step.samples.status == 200
    record, answer = _sizes(served, world)
    return Measured(
        latency_ms=step.samples.latency_ms[ok], standing_ms=standing_ms,
        cpu_ms=max(1000 * step.cpu_s - standing_ms * step.spent_s, 0.0) / max(step.answered, 1),
        kernels_ms=kernels_ms, driver_ms=driver_ms, worker_mib=served.memory_mib(), redis_cpu_ms=redis_cpu_ms,
        redis_bytes=redis_bytes, record_bytes=record, answer_bytes=answer,
    )  # fmt: skip


def _sizes(served: Served, world: World) -> tuple[float, float]:
    """Bytes of a decision's record and of an answer."""
    records, answers = [], []
    for body in requests(10, world.users, seed=5):
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{served.url}{ROUTE}", content=body, headers=headers, timeout=30)
        answer.raise_for_status()
        answers.append(len(answer.content))
        record = httpx.get(f"{served.url}/v1/decisions/{answer.json()['request_id']}", timeout=30)
        record.raise_for_status()
        records.append(len(record.content))
    return float(np.mean(records)), float(np.mean(answers))


def builds(sizes: Sequence[int], console: Console) -> list[dict[str, float]]:
    """CPU seconds to build inverted lists, by items."""
    rows = []
    config = AnnConfig(exact_below=0, hnsw_below=0)
    for n in sizes:
        vectors = clustered(n, 64, int(n**0.5), seed=n)
        begun = time.process_time()
        AnnIndex.build(vectors, config, threads=2)
        rows.append({"items": float(n), "cpu_s": round(time.process_time() - begun, 2)})
        console.print(f"index of {n:,} items: {rows[-1]['cpu_s']} CPU seconds")
    return rows


def bytes_each(world: World, used: int, empty: int) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes of a shopper and of an item by where they lie, from the files and from Redis."""
    folder, scale = world.home / "published", world.scale

    def each(bundle: str, file: str, n: int) -> float:
        return round((folder / bundle / "1" / file).stat().st_size / n, 1)

    tables = 4.0 * scale.dim
    return (
        {"online store": round((used - empty) / scale.users, 1), "id in the shopper's network": tables},
        {
            "index": each("index", "items.faiss", scale.items),
            "neighbours": each("cooccurrence", "neighbours.npz", scale.items),
            "ids in two networks": 2 * tables,
        },
    )  # fmt: skip


def measure(options: Any, console: Console) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything, in one run: the result, and the raw samples by name."""
    scale, seconds = (QUICK, 2.0) if options.quick else (PRODUCTION_LIKE, options.seconds)
    rates = (10.0, 20.0) if options.quick else [float(rate) for rate in options.rates.split(",")]
    cores = int(hardware()["cores"])
    with tempfile.TemporaryDirectory(prefix="minimart-capacity-") as folder:
        home = Path(folder)
        world = build(home, scale, console.print)
        with redis(home) as address:
            empty = Watched(*address).used_bytes()
            fill(world, address[0], console.print)
            per_user, per_item = bytes_each(world, Watched(*address).used_bytes(), empty)
            kernels, _ = floors(world, address[0], runs=20 if options.quick else 200)
            onnx_ms = sum(ms for name, ms in kernels.items() if "ONNX" in name)
            console.print("one worker ...")
            with recommender(home, address[0], workers=1, settings=ALONE) as served:
                seen = idle(served, world, address, onnx_ms, 3 * seconds, 2.0 if options.quick else STANDING_S)
                steps = {1: load_steps(served, world, rates, seconds, console)}
            console.print("two workers ...")
            with recommender(home, address[0], workers=2, settings=ALONE) as served:
                served.step(IDLE_RATE, 3, world.users, 1)
                steps[2] = load_steps(served, world, rates, seconds, console)
    rows = {workers: [step.figures(scale.seed) for step in some] for workers, some in steps.items()}
    index_builds = builds((2_000, 4_000, 8_000) if options.quick else BUILD_SIZES, console)
    prices = Prices(options.core, options.gib)
    sizes = (per_user, per_item)
    found = result(seen, kernels, rows, cores, sizes, index_builds, scale.seed, asdict(scale), prices)
    samples: dict[str, Any] = {}
    for count, some in steps.items():
        for step in some:
            samples |= columns_of(f"workers_{count}_rate_{step.rate:g}", step.samples)
    return found, samples


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each load step (default 6)")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="requests per second, rising")
    parser.add_argument("--core", type=float, default=Prices().core, help="price of a core for an hour (an assumption)")
    parser.add_argument("--gib", type=float, default=Prices().gib, help="price of a GiB for an hour (an assumption)")
    parser.add_argument("--quick", action="store_true", help="a small marketplace and short steps, as a test does")
    parser.add_argument("--save", type=Path, help="write the result here and its picture beside it")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    found, samples = measure(options, console)
    show(found, console)
    if options.save:
        keep(found, samples, options.save)
        picture(found, options.save.with_suffix(".png"))
        console.print(f"written: {options.save}, its picture and its raw samples")
    return 1 if any(row["errors"] for rows in found["measured"].values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
