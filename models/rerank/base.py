"""The one base of re-ranking rules, and the loop that applies them.

To add a rule: a file beside this, and its place in the order in `__init__`. A rule knows arrays, no network; it never
drops for taste, only for what must not be shown, so that k products remain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]
Positions = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Slate:
    """Candidates, best first, so far; `scores[i]` belongs to `rows[i]`. `moved_by`: row -> the rules that moved it."""

    rows: Rows
    scores: Scores
    moved_by: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a rule may look at; everything is by row. `in_stock` asks the live catalogue, fresher than the shelf."""

    k: int
    new: NDArray[np.bool_]
    """By row: listed lately."""
    promoted: NDArray[np.bool_]
    """By row."""
    adult: NDArray[np.bool_]
    """By row: for adults only."""
    of_age: bool
    """Whether the shopper is known to be of age."""
    category: NDArray[np.integer[Any]]
    """By row: a code, negative where it is not known."""
    liked: NDArray[np.integer[Any]]
    """The categories of what the shopper touched last, newest first, as such codes; known ones only."""
    recent: Rows
    """What the shopper touched last, newest first."""
    in_stock: Callable[[Rows], NDArray[np.bool_]]
    """[n] of n rows."""
    embeddings: Callable[[Rows], NDArray[np.float32] | None]
    """[n, d] L2-normalised of n rows, None where there are none."""


class Outcome(NamedTuple):
    """`order`: positions of the slate that remain, in their new order. `touched`: positions that the rule moved."""

    order: Positions
    touched: Positions


class Rule(Protocol):
    """One reason to show a product earlier, later or not at all."""

    name: ClassVar[str]
    must: ClassVar[bool]
    """Whether it keeps off the page what must not be shown: then it is applied however late it is."""

    def apply(self, slate: Slate, context: Context) -> Outcome:
        """`order` holds distinct positions of the slate; a position that it lacks is dropped."""


class Reranked(NamedTuple):
    """`after[i]` is the slate after the i-th rule; it is shorter than the rules where `late`: time ran out."""

    slate: Slate
    dropped: list[tuple[int, str]]
    """Row and the name of the rule that dropped it."""
    late: bool
    after: list[Slate]


def brought_forward(n: int, first: Positions) -> Positions:
    """An order of n positions: `first`, then the others as they were."""
    others = np.ones(n, bool)
    others[first] = False
    return np.concatenate([first, np.flatnonzero(others)])


def nothing_moved(slate: Slate) -> Outcome:
    return Outcome(np.arange(len(slate.rows)), np.zeros(0, np.int64))


def rerank(
    slate: Slate, context: Context, rules: Sequence[Rule], out_of_time: Callable[[], bool] = lambda: False
) -> Reranked:
    """Apply `rules` in order, those that must be applied first among them; when time is out, no other."""
    dropped: list[tuple[int, str]] = []
    after: list[Slate] = []
    for rule in rules:
        if not rule.must and out_of_time():
            return Reranked(slate, dropped, True, after)
        order, touched = rule.apply(slate, context)
        if len(order) < len(slate.rows):
            gone = np.ones(len(slate.rows), bool)
            gone[order] = False
            dropped += [(int(row), rule.name) for row in slate.rows[gone]]
        moved = {row: (*slate.moved_by.get(row, ()), rule.name) for row in slate.rows[touched].tolist()}
        slate = Slate(slate.rows[order], slate.scores[order], {**slate.moved_by, **moved})
        after.append(slate)
    return Reranked(slate, dropped, False, after)
