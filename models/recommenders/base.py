"""The base of the retrieval models: sequences in, one score per item of the catalogue out. Knows no files, no clock.

A model learns from `Training` and answers `Histories`. Scores are finite; only their order within a history matters.
What a model cannot judge (an item that it never saw) gets the lowest score of its row or a tie, never an invented
one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Sequences:
    """Sequences of items, oldest first: sequence s is `items[starts[s]:starts[s + 1]]`.

    `starts` int64 [S+1], `items` int64 [E] (0-based rows of the catalogue), `time_ms` int64 [E] or None without times.
    """

    starts: Ints
    items: Ints
    time_ms: Ints | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        return np.diff(self.starts)

    @property
    def owner(self) -> Ints:
        """The sequence of every entry, int64 [E]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def from_end(self) -> Ints:
        """How many entries of its sequence follow an entry, int64 [E]."""
        return np.repeat(self.starts[1:], self.lengths) - 1 - np.arange(len(self.items))

    def of(self, sequence: int) -> Ints:
        return self.items[self.starts[sequence] : self.starts[sequence + 1]]

    def where(self, keep: NDArray[np.bool_]) -> Sequences:
        """The same sequences with only the entries that are kept."""
        lengths = np.bincount(self.owner[keep], minlength=len(self))
        times = None if self.time_ms is None else self.time_ms[keep]
        return Sequences(np.concatenate([[0], np.cumsum(lengths)]), self.items[keep], times)

    def take(self, chosen: Ints) -> Sequences:
        """Some of the sequences, in that order."""
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], lengths)
        return Sequences(starts, self.items[rows], None if self.time_ms is None else self.time_ms[rows])

    def newest(self, most: int) -> Sequences:
        """At most so many entries: the newest of every sequence, or, if even that is too much, the first sequences."""
        if len(self.items) <= most:
            return self
        limit = int(np.partition(self.from_end, most)[most])
        return self.where(self.from_end < limit if limit >= 2 else np.arange(len(self.items)) < most)

    def matrix(self, n_items: int, decay: float = 1.0, most: int | None = None) -> sparse.csr_matrix:
        """float32 [S, n_items]: the newest entry weighs 1, each older one `decay` times the one after it.

        A repeated item keeps the sum. `most` keeps the newest so many entries.
        """
        age = self.from_end
        keep = np.ones(len(age), dtype=bool) if most is None else age < most
        weight = np.power(np.float32(decay), age[keep], dtype=np.float32)
        shape = (len(self), n_items)
        return sparse.csr_matrix((weight, (self.owner[keep], self.items[keep])), shape=shape, dtype=np.float32)


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items before anybody touches them; empty arrays where nothing is.

    `category` int64 [N] (0-based code), `log_price` float32 [N] (log1p of cents, NaN = unknown), `text` one string
    per item.
    """

    n_items: int
    category: Ints | None = None
    log_price: Floats | None = None
    text: list[str] | None = None

    @property
    def described(self) -> bool:
        """Whether content tells any two items apart."""
        return self.text is not None or (self.category is not None and len(np.unique(self.category)) > 1)


@dataclass(frozen=True)
class Training:
    """What a model learns from: one sequence per user, and the catalogue."""

    sequences: Sequences
    catalogue: Catalogue
    seed: int = 7
    threads: int = 2
    memory_gib: float = 6.0

    @property
    def n_items(self) -> int:
        return self.catalogue.n_items

    @property
    def counts(self) -> Ints:
        """How often each item was touched, int64 [N]."""
        return np.bincount(self.sequences.items, minlength=self.n_items)


@dataclass(frozen=True)
class Histories:
    """Whom to recommend to: what each has touched, and the row of the training's user (-1: unknown)."""

    sequences: Sequences
    users: Ints

    def __len__(self) -> int:
        return len(self.users)

    def part(self, rows: slice) -> Histories:
        chosen = np.arange(len(self))[rows]
        return Histories(self.sequences.take(chosen), self.users[chosen])


class Recommender(ABC):
    """A model with a configuration; `fit` before `score`."""

    name: ClassVar[str]
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """What the tuner may choose from: option -> values. `default` holds where it starts."""
    default: ClassVar[Config] = {}
    rounds: ClassVar[int] = 0
    """Most rounds (epochs) of training; 0 for a model that is fitted at once."""
    tuned_on: ClassVar[int] = 0
    """So many of the most popular items are enough to tune it; 0: only the whole catalogue is."""
    refit_share: ClassVar[float] = 1.0
    """What `refit` costs, in rounds of training."""
    share: ClassVar[float] = 1.0
    """How much of a time budget the model asks for, relative to the others."""

    def __init__(self, **config: Any) -> None:
        if unknown := config.keys() - self.default.keys():
            raise ValueError(f"{self.name}: {min(unknown)!r} is no option; allowed: {', '.join(self.default)}")
        self.config: dict[str, Any] = {**self.default, **config}

    @classmethod
    def suits(cls, training: Training) -> str:
        """Empty, or why the model cannot be fitted on such data."""
        return ""

    @abstractmethod
    def fit(self, training: Training) -> None:
        """Learn from the training data; a model with rounds only prepares for its first."""

    @abstractmethod
    def score(self, histories: Histories) -> Floats:
        """Finite scores float32 [H, N]."""

    def round(self) -> float:
        """One more round of training; the mean loss. Only for models with rounds."""
        raise NotImplementedError(f"{self.name} is fitted at once")

    def snapshot(self) -> Recommender:
        """The model as it is, apart from further rounds."""
        return copy.deepcopy(self)

    def refit(self, training: Training, rounds: int) -> Recommender:
        """A model with the same configuration on more data, after as many rounds."""
        model = type(self)(**self.config)
        model.fit(training)
        for _ in range(rounds):
            model.round()
        return model


def lowest_where(scores: Floats, unknown: NDArray[np.bool_]) -> Floats:
    """The scores with the columns of `unknown` items [N] below every other, in place."""
    if unknown.any():
        scores[:, unknown] = scores.min(axis=1, keepdims=True) - 1.0
    return scores
