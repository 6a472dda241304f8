"""The one base of retrieval sources. To add one: a file beside this, a line in `__init__`, its size in SIZES.

A source is pure and quick (numpy and FAISS only): what must be asked over the network is in the query already.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from models.cooccurrence import Votes
from models.retrieval import SIZES
from services.recommender.shelf import Shelf
from services.recommender.terms import Rows, Shopper


@dataclass(frozen=True)
class Query:
    """What a source may look at. `embedding` [d] is the shopper in item space, None if it could not be had."""

    shelf: Shelf
    shopper: Shopper
    embedding: NDArray[np.float32] | None

    @cached_property
    def recent_rows(self) -> Rows:
        """Rows of the shopper's recent items, newest first, those on the shelf only."""
        rows = [self.shelf.row(item) for item in self.shopper.recent]
        return np.array([row for row in rows if row >= 0], np.int64)

    @cached_property
    def votes(self) -> Votes | None:
        """What the co-occurrence model says of the recent items; None without that model."""
        model = self.shelf.lineup.cooccurrence
        return None if model is None else model.votes(self.recent_rows)


class Source(Protocol):
    """One way to find candidates."""

    name: ClassVar[str]

    def retrieve(self, query: Query) -> Rows:
        """Distinct rows of the shelf, best first, at most SIZES[name]; empty if it has nothing to say."""


def limit_of(source: Source) -> int:
    return SIZES[source.name]
