"""What all aggregations share. One says what it needs of the rows in a window and how that becomes its value.

The same `read` runs over both stores of partial results (`Partials`): packed tiles online, SQL over the lake offline.
So an aggregation is defined here once; a store only has to add up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from feature_repo.windows import Window

Kind = Literal["count", "sum", "min", "max", "squares"]
"""Mergeable partial results of one column over the rows of a tile or window."""

Argument = Literal["", "k", "other", "half_life_ms"]
DType = Literal["int64", "float64", "string", "list<string>"]


class Asked(Protocol):
    """What an aggregation reads of a feature's declaration (`plan.Feature`)."""

    @property
    def column(self) -> str: ...
    @property
    def k(self) -> int: ...
    @property
    def other(self) -> str: ...
    @property
    def half_life_ms(self) -> int: ...
    @property
    def span(self) -> Window: ...


class Partials(Protocol):
    """Partial results of n keys (online, at one time) or of n (key, time) pairs (offline), in order."""

    def total(self, kind: Kind, column: str, window: Window) -> np.ndarray:
        """count and sum float64 [n], 0 if there is no row; min and max float64 [n], NaN if there is none; squares
        (sums of squares) Python integers, object [n]."""

    def measure(self, column: str, window: Window) -> np.ndarray:
        """The sum of a column's values or, if it has none, its count: float64 [n]."""

    def decayed(self, column: str, window: Window, half_life_ms: int) -> np.ndarray:
        """The measure, each tile's share halved once per half-life between it and the open tile: float64 [n]."""

    def distinct(self, column: str, window: Window) -> np.ndarray:
        """The number of distinct values: float64 [n]."""

    def top(self, column: str, window: Window, k: int) -> np.ndarray:
        """Lists of the at most k most frequent values, ties by value ascending: object [n]."""

    def newest(self, column: str, k: int) -> np.ndarray:
        """Lists of the at most k values of largest (event time, value), newest first: object [n]."""


class Aggregation(ABC):
    """One function of a column over a window. Stateless; there is one instance of each.

    `formula`, `error` and `bound` (what bounds the memory of one key) are the table in docs/features.md.
    """

    name: ClassVar[str]
    spelled: ClassVar[str] = ""
    """How a declaration begins it, where that is not its name: `top_3` is top_k."""
    argument: ClassVar[Argument] = ""
    """What a declaration must add to it."""
    windowed: ClassVar[bool] = True
    fades: ClassVar[bool] = False
    """Whether what is in the window counts less as it ages, so that the value changes with every tile."""
    takes: ClassVar[Literal["rows", "number", "text", "any"]] = "number"
    """What its column must hold; `rows`: a column without a value will do."""
    dtype: ClassVar[DType] = "float64"
    formula: ClassVar[str]
    error: ClassVar[str] = "exact"
    bound: ClassVar[str] = "a fixed number of bytes per tile"
    meaning: ClassVar[str]
    """In words; {column}, {other}, {k}, {half_life} and {window} are filled in."""

    def partials(self, asked: Asked, valued: frozenset[str]) -> tuple[tuple[Kind, str], ...]:
        """The fixed-size partials that each tile must hold; `valued` are the columns that have a value."""
        return ()

    @abstractmethod
    def read(self, asked: Asked, partials: Partials) -> np.ndarray:
        """The values, n of them."""

    def plain(self, value: Any) -> Any:
        """One value of `read` as Python knows it."""
        return int(value) if self.dtype == "int64" else float(value) if self.dtype == "float64" else value


def measure(column: str, valued: frozenset[str]) -> tuple[Kind, str]:
    """The partial that a column is measured by: its sum or, without a value, its count."""
    return ("sum" if column in valued else "count"), column


def divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    quotient: np.ndarray = np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)
    return quotient
