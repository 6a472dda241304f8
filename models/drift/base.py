"""What all detectors share. A detector measures; whether that is drift is judged later, for all of them together.

- `Comparison`: two summaries of one column, reference and current.
- `RateComparison`: two rates (hits per trial): volume, labels, calibration.
- `Sequential`: one value at a time, in order; says when the stream changed.

To add one: a file with one class, a line in `family.py`, and the shared check suite runs over it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from models.drift.columns import Column

LEAST: Final = 30
"""Independent observations below which nothing is said about a distribution."""


class Level(IntEnum):
    """How bad it is. The numbers are those of the gauge `minimart_drift_level`."""

    INSUFFICIENT_DATA = -1
    HEALTHY = 0
    WARN = 1
    DRIFT = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Thresholds:
    """From `warn` on it is worth a look, from `alert` on it is drift."""

    warn: float
    alert: float

    def __post_init__(self) -> None:
        if not 0 <= self.warn <= self.alert:
            raise ValueError(f"thresholds need 0 <= warn <= alert: {self}")

    def level(self, value: float) -> Level:
        return Level.DRIFT if value >= self.alert else Level.WARN if value >= self.warn else Level.HEALTHY


@dataclass(frozen=True)
class Measurement:
    """How far apart, and the chance to see as much by accident (None: the detector knows no such law)."""

    value: float
    p_value: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Rate:
    """`hits` in `trials`; `spread` is the standard deviation of `hits`, None for that of a Poisson count."""

    hits: float
    trials: float
    spread: float | None = None


class Comparison(ABC):
    """Two samples of one column. `name` appears in reports; `thresholds` hold where the declaration gives none."""

    name: ClassVar[str]
    thresholds: ClassVar[Thresholds]
    numbers_only: ClassVar[bool] = False

    def measure(self, reference: Column, current: Column) -> Measurement | None:
        """None where the samples do not suffice: fewer than LEAST values on a side, or texts for a number's test."""
        if self.numbers_only and (reference.categorical or current.categorical):
            return None
        if not self.enough(reference, current):
            return None
        return self.distance(reference, current)

    def enough(self, reference: Column, current: Column) -> bool:
        return all(column.filled and column.present >= LEAST for column in (reference, current))

    @abstractmethod
    def distance(self, reference: Column, current: Column) -> Measurement:
        """The measurement; both columns are known to suffice."""


class RateComparison(ABC):
    """Two rates. The value is the size of the log of their ratio: 0.1 is about 10 % more or less."""

    name: ClassVar[str]
    thresholds: ClassVar[Thresholds]

    @abstractmethod
    def measure(self, reference: Rate, current: Rate) -> Measurement | None:
        """None where there is too little to compare."""


class Sequential(ABC):
    """A stream of values in [0, 1], in order. Not thread-safe; keeps O(log n) memory or less."""

    name: ClassVar[str]

    @abstractmethod
    def update(self, value: float) -> bool:
        """Take one value; True when the stream has changed, after which the detector starts anew."""
