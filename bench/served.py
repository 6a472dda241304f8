"""A recommender of its own, as a process on this machine, for measuring: started, loaded, watched, stopped.

Kafka and Triton are not there: decisions are recorded and packed but not sent (`kafka_down`), models run in process.
Several workers keep to a core each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.client import drive, poisson_times
from bench.load import requests
from bench.samples import Samples, percentiles, samples_of, summary
from pipelines.stack import redis_server
from pipelines.stack.launch import Launch, free_ports, python_of, running
from services.recommender.admission import AdmissionConfig

HOST: Final = "127.0.0.1"
ROUTE: Final = "/v1/recommendations"
READY_S: Final = 600.0
SETTLE_S: Final = 1.0
REDIS_MIB: Final = 6144
DOOR: Final = AdmissionConfig(at_once=1, most=16)
"""With models in process, one thread a worker, more at once would only delay one another."""


@dataclass(frozen=True)
class Step:
    """One load step: its samples, and what the recommender's processes used for it."""

    rate: float
    seconds: float
    samples: Samples
    cpu_s: float
    driver_s: float
    """CPU of the load driver, on the same machine."""
    spent_s: float
    """Wall seconds from the first intended request to the last answer."""

    @property
    def answered(self) -> int:
        return int((self.samples.status == 200).sum())

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return self.answered / max(self.spent_s, 1e-9)

    def figures(self, seed: int) -> dict[str, Any]:
        """The step's row in a result file."""
        full = summary(self.samples, rate=self.rate, seconds=self.seconds, seed=seed)
        names = ("rate", "requests", "answered", "shed", "errors", "latency_ms", "shed_latency_ms", "stages_ms")
        row = {name: full[name] for name in names}
        busy = {"goodput": round(self.goodput, 1), "cpu_ms_per_answer": round(1000 * self.cpu_s / self.answered, 2)}
        return row | (busy if self.answered else {"goodput": 0.0, "cpu_ms_per_answer": None})

    @property
    def p99_ms(self) -> float:
        return percentiles(self.samples.latency_ms[self.samples.status == 200]).get("p99", float("inf"))


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started."""
    return [process, *process.children(recursive=True)]


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process and all that it started, so far."""
    return sum(sum(one.cpu_times()[:2]) for one in family(process))


class Served:
    """A running recommender."""

    def __init__(self, port: int, pid: int) -> None:
        self.url, self._port, self._process = f"http://{HOST}:{port}", port, psutil.Process(pid)

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        return cpu_seconds(self._process)

    def memory_mib(self) -> float:
        """Memory of all its processes; what they share counts once (proportional set size)."""
        return sum(one.memory_full_info().pss for one in family(self._process)) / 2**20

    def step(self, rate: float, seconds: float, shoppers: list[str], seed: int) -> Step:
        """Open-loop load at `rate`, a realistic mix of shoppers."""
        times = poisson_times(rate, seconds, seed)
        bodies = requests(len(times), shoppers, seed)
        before, begun, driver = self.cpu_s(), time.perf_counter(), time.process_time()
        replies = asyncio.run(drive(HOST, self._port, ROUTE, times, bodies))
        spent, used = time.perf_counter() - begun, self.cpu_s() - before
        driver = time.process_time() - driver
        time.sleep(SETTLE_S)  # queues and the decision log run dry
        return Step(rate, seconds, samples_of(replies), used, driver, spent)

    def standing_ms(self, seconds: float) -> float:
        """CPU of a second in which nobody asks anything, of all its processes."""
        before = self.cpu_s()
        time.sleep(seconds)
        return 1000 * (self.cpu_s() - before) / seconds

    def refused_ms(self, n: int, rate: float = 100.0) -> float:
        """CPU of a request that goes through HTTP and validation and no further: its shopper's id is empty."""
        standing, before, begun = self.standing_ms(n / rate), self.cpu_s(), time.perf_counter()
        bodies = [b'{"user_id": "", "k": 20, "surface": "home", "context": {"device": "phone"}}'] * n
        replies = asyncio.run(drive(HOST, self._port, ROUTE, np.arange(n) / rate, bodies))
        assert {reply.status for reply in replies} == {422}
        spent = time.perf_counter() - begun
        return max(1000 * (self.cpu_s() - before) - standing * spent, 0.0) / n

    def counters(self, *names: str) -> dict[str, float]:
        """Samples of /metrics by name and labels, e.g. `minimart_shed_total{limit=queue}`."""
        found = {}
        for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics", timeout=30).text):
            for sample in family.samples:
                if sample.name in names:
                    labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                    found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    def workers(self) -> int:
        """Processes that answer."""
        limit = self.counters("minimart_admission_limit")
        return round(sum(limit.values()) / DOOR.most)


@contextmanager
def redis(folder: Path) -> Iterator[tuple[str, int]]:
    """A Redis of its own: address and process id."""
    (port,) = free_ports(1)
    launch = redis_server.launch(folder / "redis", host=HOST, port=port, memory_mb=REDIS_MIB)
    with running(launch, log=folder / "redis.log", ready=lambda: redis_server.ready(HOST, port)) as process:
        yield f"redis://{HOST}:{port}/0", process.pid


@contextmanager
def recommender(
    home: Path, redis_url: str, *, workers: int, settings: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """A recommender on `home`; `settings` are further MINIMART_* values by their lower-case names."""
    port, nobody = free_ports(2)
    values = {
        "home": str(home), "recommender_port": str(port), "port_offset": "0", "redis_url": redis_url,
        "kafka_bootstrap": f"{HOST}:{nobody}", "triton_grpc": f"{HOST}:{nobody}", "recommender_models": "in_process",
        "recommender_workers": str(workers), "recommender_in_flight": str(DOOR.most), "threads": "1",
        "recommender_at_once": str(DOOR.at_once), "recommender_pin": "true", "log_level": "warning",
    } | dict(settings or {})  # fmt: skip
    environment = {f"MINIMART_{name.upper()}": value for name, value in values.items()}
    launch = Launch((python_of("platform"), "-m", "services.recommender"), environment)

    def ready() -> bool:
        try:
            return httpx.get(f"http://{HOST}:{port}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    with running(launch, log=home / "recommender.log", ready=ready, timeout_s=READY_S) as process:
        served, until = Served(port, process.pid), time.monotonic() + READY_S
        while served.workers() < workers and time.monotonic() < until:
            time.sleep(0.5)
        yield served
