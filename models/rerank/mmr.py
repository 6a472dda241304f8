"""Trades a little relevance of the first k for variety (maximal marginal relevance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.diversity import mmr
from models.rerank.base import Context, Outcome, Scores, Slate, brought_forward, nothing_moved


@dataclass(frozen=True)
class Mmr:
    """`balance` 1 is relevance only. The first `breadth` x k candidates are looked at."""

    name: ClassVar[str] = "mmr"
    must: ClassVar[bool] = False
    balance: float = 0.9
    breadth: int = 3

    def apply(self, slate: Slate, context: Context) -> Outcome:
        head = slate.rows[: self.breadth * context.k]
        embeddings = context.embeddings(head)
        if embeddings is None or len(head) < 3:
            return nothing_moved(slate)
        first = diversified(embeddings, context.k, self.balance)
        return Outcome(brought_forward(len(slate.rows), first), first[first != np.arange(len(first))])


def diversified(head: NDArray[np.floating[Any]], k: int, balance: float) -> NDArray[np.int64]:
    """Positions of the first k; `head` [n, d] are the embeddings of the candidates, best first."""
    return mmr(falling(len(head)), head, k, balance)


def falling(n: int) -> Scores:
    """Relevance by place, 1 / log2(place + 1): the scores of two models cannot be compared, their orders can."""
    return np.asarray(1.0 / np.log2(np.arange(n) + 2.0))
