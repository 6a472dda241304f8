"""Keeps some of the first k places for items listed lately, so that they can be found at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.rerank.base import Context, Outcome, Slate, nothing_moved


@dataclass(frozen=True)
class Freshness:
    """At least `share` of k (rounded up) are new items, best first, at the end of the first k."""

    name: ClassVar[str] = "freshness"
    must: ClassVar[bool] = False
    share: float = 0.05

    def apply(self, slate: Slate, context: Context) -> Outcome:
        n, k = len(slate.rows), min(context.k, len(slate.rows))
        new = context.new[slate.rows]
        lacking = math.ceil(self.share * k) - int(new[:k].sum())
        lifted = k + np.flatnonzero(new[k:])[: max(lacking, 0)]
        if k < 2 or len(lifted) == 0:
            return nothing_moved(slate)
        giving_way = np.flatnonzero(~new[:k])[-len(lifted) :]
        lifted = lifted[: len(giving_way)]
        first = np.arange(n) < k
        first[giving_way] = False
        last = ~first
        last[lifted] = False
        return Outcome(np.concatenate([np.flatnonzero(first), lifted, np.flatnonzero(last)]), lifted)
