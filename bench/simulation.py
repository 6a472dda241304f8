"""A discrete-event simulation of recommenders on one machine: where requests wait, and for what.

A request is let in or shed by the very door of the recommender, takes a turn in its worker's funnel, and needs in turn
the worker's interpreter (one piece of Python at a time), its kernels (ONNX in other threads, beside the interpreter)
and an answer of the store. All that computes needs a core too: the worker's own, where workers are pinned. After the
answer its record is made, by the same interpreter, which also does what a worker does whoever asks: once a second it
renews its shelf. Queues are first come, first served. Knows no measurement: `bench/capacity_model.py` brings the
numbers.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.recommender.admission import AdmissionConfig, Door

Process = Generator["float | Resource", None, None]
_PIECES = 4  # of Python, between which the kernels run
_SWITCH_MS = 5.0  # CPython's switch interval: after so long a thread gives the interpreter to one that waits


@dataclass(frozen=True)
class Demand:
    """What a request needs, in ms. `shape`: factors with mean 1 by which requests differ; one is drawn for each."""

    python_ms: float
    kernel_ms: float
    wait_ms: float = 0.0
    record_ms: float = 0.0
    elsewhere_ms: float = 0.0
    """CPU that others on the same machine use for it: the load driver."""
    standing_ms: float = 0.0
    """CPU of every worker in a second without any request."""
    shape: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))

    def __post_init__(self) -> None:
        parts = (self.python_ms, self.kernel_ms, self.wait_ms, self.record_ms, self.elsewhere_ms, self.standing_ms)
        if min(parts) < 0 or self.python_ms + self.kernel_ms <= 0:
            raise ValueError(f"times must not be negative, and something must compute: {parts}")


@dataclass(frozen=True)
class Machine:
    """`workers` processes on `cores`, each behind a `door` of its own; `pinned`: each keeps to one core."""

    cores: int
    workers: int
    door: AdmissionConfig = field(default_factory=AdmissionConfig)
    pinned: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run showed: milliseconds of those that were answered, how many were shed, cores busy on average."""

    latency_ms: NDArray[np.float64]
    shed: int
    busy_cores: float

    def percentile(self, p: float) -> float:
        return float(np.percentile(self.latency_ms, p)) if len(self.latency_ms) else float("inf")


class Resource:
    """`capacity` places, taken in order of asking: `yield resource` waits for one, `release()` gives it back."""

    def __init__(self, clock: Clock, capacity: int) -> None:
        self._clock, self._free, self._waiting = clock, capacity, deque[Process]()

    def ask(self, process: Process) -> None:
        if self._free > 0:
            self._free -= 1
            self._clock.at(0.0, process)
        else:
            self._waiting.append(process)

    def release(self) -> None:
        if self._waiting:
            self._clock.at(0.0, self._waiting.popleft())
        else:
            self._free += 1


class Clock:
    """Runs processes in order of time. A process yields milliseconds to pass, or a resource to wait for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Process]] = []
        self._count = 0

    def at(self, delay_ms: float, process: Process) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_ms, self._count, process))

    def run(self) -> None:
        while self._events:
            self.now, _, process = heapq.heappop(self._events)
            try:
                wanted = next(process)
            except StopIteration:
                continue
            if isinstance(wanted, Resource):
                wanted.ask(process)
            else:
                self.at(wanted, process)


class _Worker:
    def __init__(self, clock: Clock, machine: Machine, cores: Resource) -> None:
        self.cores = cores
        self.interpreter, self.turns = Resource(clock, 1), Resource(clock, machine.door.at_once)
        self.door = Door(machine.door, lambda: clock.now / 1000)


class _Run:
    def __init__(self, machine: Machine, demand: Demand, rng: np.random.Generator) -> None:
        self.machine, self.demand, self.rng = machine, demand, rng
        self.clock = Clock()
        pools = machine.cores if machine.pinned else 1
        cores = [Resource(self.clock, machine.cores // pools) for _ in range(pools)]
        self.workers = [_Worker(self.clock, machine, cores[i % pools]) for i in range(machine.workers)]
        self.latency: list[float] = []
        self.shed = 0
        self.busy_ms = 0.0
        self.open = True
        """Whether more requests come."""

    def request(self, worker: _Worker, factor: float) -> Process:
        """One request's way, from its arrival on."""
        arrived, demand = self.clock.now, self.demand
        if demand.elsewhere_ms:
            self.clock.at(0.0, self._on_core(worker, demand.elsewhere_ms))
        if not worker.door.enter():
            self.shed += 1
            return
        yield worker.turns
        worker.door.waited((self.clock.now - arrived) / 1000)
        piece = demand.python_ms * factor / _PIECES
        kernel = demand.kernel_ms * factor / (_PIECES - 1)
        for i in range(_PIECES):
            if i:
                yield from self._on_core(worker, kernel)
            yield from self._python(worker, piece)
            if i == 0 and demand.wait_ms:
                yield demand.wait_ms * factor
        worker.turns.release()
        worker.door.leave()
        self.latency.append(self.clock.now - arrived)
        if demand.record_ms:
            yield from self._python(worker, demand.record_ms * factor)

    def _python(self, worker: _Worker, ms: float) -> Process:
        yield worker.interpreter
        yield from self._on_core(worker, ms)
        worker.interpreter.release()

    def _on_core(self, worker: _Worker, ms: float) -> Process:
        yield worker.cores
        yield ms
        self.busy_ms += ms
        worker.cores.release()

    def standing(self, worker: _Worker, first_ms: float) -> Process:
        """What a worker does once a second, in pieces as long as a thread may keep the interpreter."""
        yield first_ms
        while self.open:
            begun, left = self.clock.now, self.demand.standing_ms
            while left > 0:
                yield from self._python(worker, min(left, _SWITCH_MS))
                left -= _SWITCH_MS
            yield max(1000.0 - (self.clock.now - begun), 0.0)

    def arrivals(self, rate: float, n: int) -> Process:
        gaps = self.rng.exponential(1000 / rate, n)
        workers = self.rng.integers(0, len(self.workers), n)
        factors = self.rng.choice(self.demand.shape, n)
        for gap, worker, factor in zip(gaps.tolist(), workers.tolist(), factors.tolist(), strict=True):
            yield gap
            self.clock.at(0.0, self.request(self.workers[worker], factor))
        self.open = False


def simulate(machine: Machine, demand: Demand, rate: float, *, requests: int = 4000, seed: int = 7) -> Outcome:
    """`requests` of a Poisson process of `rate` a second, spread over the workers by chance."""
    run = _Run(machine, demand, np.random.default_rng(seed))
    run.clock.at(0.0, run.arrivals(rate, requests))
    if demand.standing_ms:
        for i, worker in enumerate(run.workers):
            run.clock.at(0.0, run.standing(worker, 1000.0 * i / machine.workers))
    run.clock.run()
    return Outcome(np.array(run.latency), run.shed, run.busy_ms / max(run.clock.now, 1e-9))


def most_rate(
    keeps: Callable[[float], bool], *, low: float = 0.5, high: float = 100_000.0, within: float = 0.02
) -> float:
    """The highest rate that `keeps` its promise, to `within` of itself; 0 where even `low` does not."""
    if not keeps(low):
        return 0.0
    top = low
    while top < high and keeps(min(2 * top, high)):
        top = min(2 * top, high)
    bottom, top = top, min(2 * top, high)
    while top - bottom > within * bottom:
        middle = (bottom + top) / 2
        bottom, top = (middle, top) if keeps(middle) else (bottom, middle)
    return bottom
