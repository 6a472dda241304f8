"""Keeps the categories of the first k near the mix of what the shopper touched last (Steck 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.diversity import calibrated
from models.rerank.base import Context, Outcome, Slate, brought_forward, nothing_moved
from models.rerank.mmr import falling


@dataclass(frozen=True)
class CategoryMix:
    """`weight` 0 is the order as it came. The first `breadth` x k candidates are looked at; whoever touched fewer than
    `least` products has no mix yet."""

    name: ClassVar[str] = "category_mix"
    must: ClassVar[bool] = False
    weight: float = 0.4
    breadth: int = 3
    least: int = 5

    def apply(self, slate: Slate, context: Context) -> Outcome:
        head = context.category[slate.rows[: self.breadth * context.k]]
        first = mixed(head, context.liked, context.k, self)
        if first is None:
            return nothing_moved(slate)
        return Outcome(brought_forward(len(slate.rows), first), first[first != np.arange(len(first))])


def mixed(
    head: NDArray[np.integer[Any]], liked: NDArray[np.integer[Any]], k: int, rule: CategoryMix
) -> NDArray[np.int64] | None:
    """Positions of the first k of the candidates, whose categories are `head`, best first; `liked` are the categories
    of what was touched. None where the rule has nothing to go by."""
    if len(liked) < rule.least or len(head) < 3 or rule.weight == 0:
        return None
    codes, place = np.unique(np.concatenate([head, liked]), return_inverse=True)
    wanted = np.bincount(place[len(head) :], minlength=len(codes)) / len(liked)
    return calibrated(falling(len(head)), place[: len(head)], wanted, k, rule.weight)
