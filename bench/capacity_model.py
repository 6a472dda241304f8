"""From what was measured on one machine to what 100,000 requests a second need: pure arithmetic and the simulation.

Nothing here is fitted to the loads that it is compared with: the demand of a request comes from a nearly idle worker
and from kernels measured alone, and all queueing from the simulation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.simulation import Demand, Machine, most_rate, simulate
from services.recommender.admission import AdmissionConfig

TARGET_RPS: Final = 100_000
TARGET_P99_MS: Final = 50.0
SHAPES: Final = (2, 4, 8, 16)
"""Cores of the machines that are compared; a worker for each core."""
NETWORK_MS: Final = 1.0
SHARE_THAT_STAYS: Final = 2 / 3
"""Of three zones one may go away, and the others must carry its load."""
COMFORT: Final = 0.7
"""Load at which a shared part counts as full: beyond it queues grow quickly."""


@dataclass(frozen=True)
class Prices:
    """An assumption, of the size that clouds ask for on demand; per hour."""

    core: float = 0.04
    gib: float = 0.005


@dataclass(frozen=True)
class Measured:
    """One request, as seen on a nearly idle worker and beside it."""

    latency_ms: NDArray[np.float64]
    cpu_ms: float
    """Of the recommender, the record of the decision included, without what it needs anyway."""
    standing_ms: float
    """CPU of a worker in a second without any request: renewing its shelf, keeping warm, letting windows decay."""
    kernels_ms: float
    driver_ms: float
    worker_mib: float
    redis_cpu_ms: float
    redis_bytes: float
    record_bytes: float
    answer_bytes: float


def demand_of(seen: Measured, *, driver: bool) -> Demand:
    """What a request needs.

    CPU beyond the latency is work after the answer; latency beyond the CPU is waiting. `driver`: the load comes from
    the same machine.
    """
    latency = float(np.median(seen.latency_ms))
    inside = min(seen.cpu_ms, latency)
    kernels = min(seen.kernels_ms, 0.95 * inside)
    trimmed = np.minimum(seen.latency_ms, np.percentile(seen.latency_ms, 99))
    return Demand(
        python_ms=inside - kernels, kernel_ms=kernels, wait_ms=max(latency - seen.cpu_ms, 0.0),
        record_ms=max(seen.cpu_ms - latency, 0.0), elsewhere_ms=seen.driver_ms if driver else 0.0,
        standing_ms=seen.standing_ms, shape=trimmed / trimmed.mean(),
    )  # fmt: skip


def compared(
    seen: Measured, rows: Mapping[int, Sequence[Mapping[str, Any]]], cores: int, door: AdmissionConfig
) -> list[dict[str, Any]]:
    """For each measured step, by workers, what the simulation says of it."""
    demand, found = demand_of(seen, driver=True), []
    for workers, steps in rows.items():
        machine = Machine(cores, workers, door, pinned=workers > 1)
        for step in steps:
            outcome = simulate(machine, demand, float(step["rate"]), requests=3000)
            predicted = {f"p{p}": round(outcome.percentile(p), 1) for p in (50, 99)}
            share = len(outcome.latency_ms) / (len(outcome.latency_ms) + outcome.shed)
            found.append({
                "workers": workers, "rate": step["rate"],
                "measured": {p: step["latency_ms"].get(p) for p in ("p50", "p99")}, "predicted": predicted,
                "answered_share": {"measured": round(step["answered"] / step["requests"], 3),
                                   "predicted": round(share, 3)},
            })  # fmt: skip
    return found


def carried(seen: Measured, prices: Prices, door: AdmissionConfig, *, requests: int = 1000) -> list[dict[str, Any]]:
    """Per shape of machine: the rate at which one keeps the promise, and what the target needs of them."""
    demand, found = demand_of(seen, driver=False), []
    for cores in SHAPES:
        machine = Machine(cores, cores, door, pinned=True)

        def keeps(rate: float, machine: Machine = machine) -> bool:
            outcome = simulate(machine, demand, rate, requests=requests * min(machine.workers, 4))
            return outcome.shed == 0 and outcome.percentile(99) + NETWORK_MS <= TARGET_P99_MS

        full = cores * (1000 - demand.standing_ms) / (demand.python_ms + demand.kernel_ms + demand.record_ms)
        rate = most_rate(keeps, low=0.1 * full)
        replicas = math.ceil(TARGET_RPS / (rate * SHARE_THAT_STAYS)) if rate else None
        memory = cores * seen.worker_mib / 1024
        price = None if replicas is None else replicas * (cores * prices.core + memory * prices.gib)
        found.append({
            "cores": cores, "rps_of_one": round(rate, 1), "replicas": replicas, "memory_gib_of_one": round(memory, 1),
            "cores_in_all": None if replicas is None else replicas * cores,
            "memory_gib_in_all": None if replicas is None else round(replicas * memory),
            "price_per_hour": None if price is None else round(price),
            "price_per_million": None if price is None else round(price / (TARGET_RPS * 3600) * 1e6, 3),
        })  # fmt: skip
    return found


def breaks_first(seen: Measured, one_machine_rps: float) -> list[dict[str, Any]]:
    """The parts in the order in which they are full, one of each, with what takes their place. Lowest first."""
    gbit, broker = 10e9 / 8, 100e6
    parts = [
        ("one recommender machine", one_machine_rps, "measured", "more replicas: they share nothing"),
        ("one Redis (its one thread)", 1000 / max(seen.redis_cpu_ms, 1e-6) * COMFORT, "measured CPU a request",
         "Redis Cluster: keys carry the shopper, so a request stays within one shard"),
        ("network of one Redis, 10 Gbit/s", gbit / max(seen.redis_bytes, 1.0) * COMFORT, "measured bytes a request",
         "the same shards"),
        ("one Kafka broker, 100 MB/s (assumed)", broker / max(seen.record_bytes, 1.0), "measured bytes a record",
         "partitions over more brokers, and a sample instead of every candidate's features"),
        ("network of one balancer, 10 Gbit/s", gbit / max(seen.answer_bytes, 1.0) * COMFORT, "measured bytes an answer",
         "several balancers behind one name"),
    ]  # fmt: skip
    rows = [
        {"part": part, "full_at_rps": round(rps), "from": basis, "instead": instead,
         "needed_for_target": math.ceil(TARGET_RPS / max(rps, 1e-9))}
        for part, rps, basis, instead in parts
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row["full_at_rps"])


@dataclass(frozen=True)
class PowerLaw:
    """y = scale x n ^ power, fitted by least squares of the logarithms; `r2` of that fit."""

    scale: float
    power: float
    r2: float

    def at(self, n: float) -> float:
        return float(self.scale * n**self.power)


def power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """Fit a power law to at least three measured points. Raises ValueError for fewer, or for values not above 0."""
    if len(sizes) < 3 or min(*sizes, *values) <= 0:
        raise ValueError(f"at least three sizes and values above 0 are needed, not {sizes} and {values}")
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
    power, offset = np.polyfit(x, y, 1)
    left = float(((y - (power * x + offset)) ** 2).sum())
    spread = float(((y - y.mean()) ** 2).sum())
    return PowerLaw(float(np.exp(offset)), float(power), 1 - left / spread if spread else 1.0)


def at_scale(
    per_user: Mapping[str, float], per_item: Mapping[str, float], builds: Sequence[Mapping[str, float]],
    *, users: int = 100_000_000, items: int = 10_000_000, shard_gib: float = 25.0, worker_gib: float = 8.0,
) -> dict[str, Any]:  # fmt: skip
    """Bytes, shards and build time of `users` x `items`, from measured bytes and build times.

    `per_user` and `per_item` are bytes by where they lie; `builds` are rows of `items` and `cpu_s`.
    """
    fit = power_law([row["items"] for row in builds], [row["cpu_s"] for row in builds])
    user_gib = {name: round(users * size / 2**30, 1) for name, size in per_user.items()}
    item_gib = {name: round(items * size / 2**30, 2) for name, size in per_item.items()}
    store = user_gib.get("online store", 0.0)
    held = sum(item_gib.values()) + sum(gib for name, gib in user_gib.items() if name != "online store")
    return {
        "users": users, "items": items, "bytes_per_user": dict(per_user), "bytes_per_item": dict(per_item),
        "users_gib": user_gib, "items_gib": item_gib, "store_shards": max(1, math.ceil(store / shard_gib)),
        "held_by_each_worker_gib": round(held, 1), "fits_one_worker": held <= worker_gib,
        "item_shards": max(1, math.ceil(sum(item_gib.values()) / worker_gib)),
        "builds": [dict(row) for row in builds], "fit": asdict(fit), "build_cpu_hours": round(fit.at(items) / 3600, 2),
    }  # fmt: skip
