"""Lifts the best promoted product to one fixed place; never more than one, never the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.rerank.base import Context, Outcome, Slate, nothing_moved


@dataclass(frozen=True)
class Promotions:
    """Looks for a promoted product among the first `breadth` x k and puts it on `place` (1-based)."""

    name: ClassVar[str] = "promotions"
    must: ClassVar[bool] = False
    place: int = 6
    breadth: int = 3

    def apply(self, slate: Slate, context: Context) -> Outcome:
        if context.k < self.place:
            return nothing_moved(slate)
        promoted = np.flatnonzero(context.promoted[slate.rows[: self.breadth * context.k]])
        if len(promoted) == 0 or promoted[0] < self.place:
            return nothing_moved(slate)
        rest = np.delete(np.arange(len(slate.rows)), promoted[0])
        return Outcome(np.insert(rest, self.place - 1, promoted[0]), promoted[:1])
