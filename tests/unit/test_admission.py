"""The door: bursts are queued, standing queues are shed early, and the limit follows the measured pace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import Overloaded
from services.recommender.admission import Admission, AdmissionConfig


class Simulated:
    """Open-loop arrivals at a door with `at_once` servers of `service_s` each, on a clock of its own."""

    def __init__(self, config: AdmissionConfig, service_s: float) -> None:
        self.now, self.service_s = 0.0, service_s
        self.door = Admission(config, clock=lambda: self.now)
        self.waits: list[float] = []
        self.answered: list[float] = []
        self.shed: list[float] = []
        self._ends: list[tuple[float, asyncio.Event]] = []

    async def run(self, arrivals: Iterator[float]) -> None:
        tasks = []
        for at in arrivals:
            await self._until(at)
            tasks.append(asyncio.create_task(self._one()))
            await self._settle()
        await self._until(float("inf"))
        await asyncio.gather(*tasks)

    async def _one(self) -> None:
        arrived = self.now
        try:
            async with self.door.turn():
                self.waits.append(self.now - arrived)
                done = asyncio.Event()
                self._ends.append((self.now + self.service_s, done))
                await done.wait()
                self.answered.append(self.now)
        except Overloaded:
            self.shed.append(arrived)

    async def _until(self, at: float) -> None:
        while self._ends and min(self._ends, key=lambda end: end[0])[0] <= at:
            end = min(self._ends, key=lambda end: end[0])
            self._ends.remove(end)
            self.now = end[0]
            end[1].set()
            await self._settle()
        self.now = at if at != float("inf") else self.now

    async def _settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)


async def test_an_overload_keeps_its_throughput_and_its_waits_short() -> None:
    config = AdmissionConfig(at_once=2, most=64, target_ms=20, interval_ms=100)
    world = Simulated(config, service_s=0.010)  # at most 200 a second
    rng = np.random.default_rng(3)
    await world.run(iter(np.cumsum(rng.exponential(1 / 400, 4000))))
    seconds = world.now
    assert len(world.answered) / seconds > 0.95 * 200, "twice the load must not cost answers"
    late = np.array(world.waits[len(world.waits) // 4 :])
    assert np.percentile(late, 99) < 0.045, "the queue is held near its target"
    assert len(world.shed) + len(world.answered) == 4000
    assert world.door.in_flight == 0


async def test_a_burst_is_queued_and_not_shed() -> None:
    world = Simulated(AdmissionConfig(at_once=2, most=64), service_s=0.010)
    await world.run(iter([0.001] * 40))
    assert (len(world.answered), world.shed) == (40, [])


async def test_the_limit_comes_back_when_the_queue_is_gone() -> None:
    config = AdmissionConfig(at_once=1, most=32, target_ms=20, interval_ms=100)
    world = Simulated(config, service_s=0.010)
    await world.run(iter(np.arange(0, 2, 0.005)))
    assert world.shed
    assert world.door.limit < 32
    before = len(world.shed)
    await world.run(iter(world.now + np.arange(0, 6, 0.02)))
    assert len(world.shed) == before
    assert world.door.limit == 32


async def test_the_hard_limit_holds_before_anything_is_known() -> None:
    world = Simulated(AdmissionConfig(at_once=1, most=3), service_s=1.0)
    await world.run(iter([0.0] * 10))
    assert (len(world.answered), len(world.shed)) == (3, 7)


async def test_a_cancelled_request_gives_its_place_back() -> None:
    door = Admission(AdmissionConfig(at_once=1, most=2))

    async def hold() -> None:
        async with door.turn():
            await asyncio.sleep(30)

    held = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 requests are here"):
        async with door.turn():
            pass
    for one in reversed(held):
        one.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    async with door.turn():
        assert door.in_flight == 1
    assert door.in_flight == 0


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 0.05), min_size=1, max_size=80), at_once=st.integers(1, 4), most=st.integers(1, 20),
    service_s=st.floats(0.001, 0.05),
)  # fmt: skip
async def test_every_arrival_is_answered_or_shed_and_never_more_than_the_limit(
    gaps: list[float], at_once: int, most: int, service_s: float
) -> None:
    world = Simulated(AdmissionConfig(at_once=at_once, most=most), service_s)
    await world.run(iter(np.cumsum(gaps)))
    assert len(world.answered) + len(world.shed) == len(gaps)
    assert world.door.in_flight == 0
    longest = most / at_once * service_s + 1e-9
    assert all(wait <= longest for wait in world.waits)


@pytest.mark.parametrize("wrong", [{"at_once": 0}, {"most": 0}, {"target_ms": 0}, {"interval_ms": -1}])
def test_wrong_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdmissionConfig(**wrong)  # type: ignore[arg-type]
