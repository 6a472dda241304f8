"""The planted worlds in which detectors and estimates are measured, and a stream that stands just before each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.drift_world import QUIET, Size, Stream
from models.drift.baseline import Baseline
from models.drift.traffic import Traffic, join
from models.marketplace.config import Scenario

SEEDS: Final = (1, 2, 3)
SETTLING: Final = 10  # windows that the trained ranker serves before anything is measured
REFERENCE: Final = 3
WORLDS: Final[dict[str, tuple[Scenario, Scenario]]] = {
    name: (Scenario(**{name: weak}), Scenario(**{name: strong}))
    for name, weak, strong in (
        ("taste_shift", 0.25, 0.5), ("traffic_mix", 0.2, 0.5), ("seasonal", 0.25, 0.5), ("price_level", 0.25, 0.5),
        ("broken_units", 0.1, 0.3), ("nulls", 0.1, 0.3), ("silence", 0.5, 1.0),
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Start:
    """A settled stream and the summary of its last windows. `windows` is fresh at every call."""

    seed: int
    stream: Stream
    healthy: tuple[Traffic, ...]

    @property
    def reference(self) -> Baseline:
        return join(self.healthy).baseline()

    def windows(self, scenario: Scenario, count: int) -> Iterator[tuple[Traffic, NDArray[np.float64]]]:
        """`count` windows under `scenario`, each with the planted chances of its clicks."""
        stream = copy.deepcopy(self.stream)
        for _ in range(count):
            yield stream.window(scenario)


def start(seed: int, size: Size | None = None) -> Start:
    """A world of this seed, settled."""
    stream = Stream(seed, size or Size())
    windows = [stream.window(QUIET)[0] for _ in range(SETTLING)]
    return Start(seed, stream, tuple(windows[-REFERENCE:]))
