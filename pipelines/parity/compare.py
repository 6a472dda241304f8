"""Readings against brute force: integers exactly, floats within 1e-9 relative, sketches within their stated error.

A reading is a column of values of one feature for (key, time) pairs, from whoever claims to know them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipelines.parity.brute_force import BruteForce, Place
from pipelines.parity.brute_rows import Key

RELATIVE: Final = 1e-9
STANDARD_ERROR: Final = 1.04 / math.sqrt(2048)  # of a distinct count that is estimated
SKETCH_ERRORS: Final = 5.0  # how many of them one estimate may be off: once in two million for a sound sketch
KEPT: Final = 20  # mismatches that are kept whole; all are counted


@dataclass(frozen=True)
class Asked:
    """One question: a key of a view at a moment. `upto`: only records below these offsets had been counted."""

    view: str
    key: Key
    at_ms: int
    upto: Mapping[Place, int] | None = None


@dataclass(frozen=True)
class Mismatch:
    """A value that is wrong: who gave it, and what it ought to be. `engines` holds what everybody said."""

    asked: Asked
    feature: Mapping[str, Any]
    who: str
    value: Any
    truth: Any
    engines: Mapping[str, Any]


@dataclass
class Tally:
    """What became of the comparisons of one (view, function, window)."""

    checks: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # who -> comparisons
    wrong: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    largest_error: float = 0.0  # relative, of floats that passed
    estimates: int = 0
    largest_estimate_error: float = 0.0  # relative, of estimated distinct counts


Cell = tuple[str, str, str]  # view, function, window


class Comparison:
    """Collects comparisons with `brute`. `say` is called now and then with how many questions are done."""

    def __init__(self, brute: BruteForce) -> None:
        self._brute = brute
        self.tallies: dict[Cell, Tally] = defaultdict(Tally)
        self.mismatches: list[Mismatch] = []
        self.questions = 0

    @property
    def checks(self) -> int:
        return sum(sum(t.checks.values()) for t in self.tallies.values())

    @property
    def wrong(self) -> int:
        return sum(sum(t.wrong.values()) for t in self.tallies.values())

    def compare(self, asked: Sequence[Asked], readings: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[int]:
        """Check each question: who -> per question feature -> value. Yields after each question how many are done."""
        for at, one in enumerate(asked):
            given = {who: rows[at] for who, rows in readings.items()}
            for feature in self._brute.views[one.view]["declared"]:
                values = {who: row[feature["name"]] for who, row in given.items() if feature["name"] in row}
                if values:
                    self._check(one, feature, values)
            self.questions += 1
            yield at + 1

    def _check(self, asked: Asked, feature: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        truth = self._brute.value(asked.view, feature, asked.key, asked.at_ms, asked.upto)
        tally = self.tallies[asked.view, feature["function"], feature.get("window", "")]
        for who, value in values.items():
            tally.checks[who] += 1
            error = difference(value, truth)
            if error > RELATIVE and feature["function"] == "distinct" and self._estimated(asked, feature):
                tally.estimates += 1
                tally.largest_estimate_error = max(tally.largest_estimate_error, error)
                wrong = error > SKETCH_ERRORS * STANDARD_ERROR
            else:
                wrong = error > (RELATIVE if isinstance(truth, float) else 0.0)
                tally.largest_error = tally.largest_error if wrong else max(tally.largest_error, error)
            if wrong:
                tally.wrong[who] += 1
                if len(self.mismatches) < KEPT:
                    self.mismatches.append(Mismatch(asked, feature, who, value, truth, dict(values)))

    def _estimated(self, asked: Asked, feature: Mapping[str, Any]) -> bool:
        return self._brute.sketched(asked.view, feature, asked.key, asked.at_ms, asked.upto)


def difference(value: Any, truth: Any) -> float:
    """How far a value is from the truth, relative to the truth; infinite where that has no meaning and they differ."""
    if isinstance(truth, (int, float)) and not isinstance(value, (str, list, type(None))):
        value, truth = float(value), float(truth)
        if math.isnan(truth) or math.isnan(value):
            return 0.0 if math.isnan(truth) and math.isnan(value) else math.inf
        return 0.0 if value == truth else abs(value - truth) / abs(truth) if truth else math.inf
    return 0.0 if _plain(value) == _plain(truth) else math.inf


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
