"""What a question and an answer are made of, whatever protocol they came by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from feature_repo.service_versions import Projection

Kind = Literal["int64", "float64", "bool", "string", "list<string>"]
Degraded = Literal["store_down", "store_incomplete"]
NEVER: Final = -1


class State(IntEnum):
    """Of one row; the numbers are those of features.proto."""

    PRESENT = 1  # read from the store for this answer
    MISSING = 2  # the store answered: it knows nothing of this key
    STALE = 3  # the store did not answer, or is not whole: the last known value
    DEFAULT = 4  # the same, and nothing is known: the declared default


STATES: Final = {state: state.name.lower() for state in State}


@dataclass(frozen=True, slots=True)
class Ask:
    """Checked: every projection is declared, `entities` holds each join key once or `rows` times."""

    ref: str  # name@version; empty for a list of features
    projections: tuple[Projection, ...]
    entities: Mapping[str, tuple[str, ...]]
    rows: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Column:
    """`values`: an array [rows]; None (NaN among floats) where there is no value."""

    name: str
    kind: Kind
    values: NDArray[Any]

    def taken(self, rows: NDArray[np.int64]) -> Column:
        """The same column with its rows in another order, or repeated."""
        return Column(self.name, self.kind, self.values[rows])


@dataclass(frozen=True, slots=True)
class ViewAnswer:
    """One view: a row per row asked, or one where all of its join keys were given once.

    `ages_ms`: from the newest event in the value to the moment asked for, at least 0; `reads_ms_ago`: since the row was
    read from the store. NEVER where there is no value, or it was never read.
    """

    name: str
    states: NDArray[np.uint8]
    ages_ms: NDArray[np.int64]
    reads_ms_ago: NDArray[np.int64]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    ask: Ask
    feature_set: str
    views: tuple[ViewAnswer, ...]
    stale: bool
    degraded: tuple[Degraded, ...]
