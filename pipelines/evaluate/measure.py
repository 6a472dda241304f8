"""What a model's answers are worth: ranks in the whole catalogue, and the first items of each list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.metrics import per_shopper, ranks_from_ahead, rivals_ahead
from models.recommenders.base import Floats, Histories, Ints, Sequences
from models.recommenders.blend import top_columns
from pipelines.evaluate.protocols import Questions

Scorer = Callable[[Histories], Floats]
Answers = Callable[[Histories], dict[str, Floats]]
Tick = Callable[[int], None]
_CELLS: Final = 4_000_000  # scores that are held at once


@dataclass(frozen=True)
class Judged:
    """Per relevant entry the rivals before it, and the lists [Q, k].

    `optimistic` and `otherwise` hold the same under the opposite treatments of ties and of seen items, for the
    relevant entries of the audited questions alone.
    """

    ahead: NDArray[np.float64]
    optimistic: NDArray[np.float64]
    otherwise: NDArray[np.float64]
    lists: Ints


def batches(questions: Questions, n_items: int) -> Iterator[slice]:
    """Slices of questions that fit into memory."""
    size = int(np.clip(_CELLS // max(n_items, 1), 8, 1024))
    for start in range(0, len(questions), size):
        yield slice(start, min(start + size, len(questions)))


def hide(scores: Floats, histories: Histories, value: float | None = None) -> Floats:
    """The scores with what each history holds set to `value`, or to the row's lowest score; in place."""
    past = histories.sequences
    fill = scores.min(axis=1)[past.owner] if value is None else value
    scores[past.owner, past.items] = fill
    return scores


def judge(
    answers: Answers, questions: Questions, n_items: int, *, mask: bool, k: int, threads: int = 1,
    audited: Ints | None = None, tick: Tick | None = None,
) -> dict[str, Judged]:  # fmt: skip
    """Ask every question of every model; `mask` keeps what a user has touched from competing and counting.

    About the questions of the rows `audited` (ascending) it also says what the opposite treatments would have given.
    """
    rows = np.zeros(0, dtype=np.int64) if audited is None else audited

    def work(part: slice) -> dict[str, Judged]:
        asked = questions.histories.part(part)
        wanted = questions.relevant.take(np.arange(part.start, part.stop))
        audit = np.isin(wanted.owner + part.start, rows)
        return {name: _judge(scores, asked, wanted, mask, k, audit) for name, scores in answers(asked).items()}

    found: dict[str, list[Judged]] = {}
    parts = list(batches(questions, n_items))
    with ThreadPoolExecutor(threads) as pool:  # NumPy lets go of the interpreter's lock
        for part, judged in zip(parts, pool.map(work, parts), strict=True):
            for name, one in judged.items():
                found.setdefault(name, []).append(one)
            if tick:
                tick(part.stop - part.start)
    return {name: _joined(ones) for name, ones in found.items()}


def _judge(scores: Floats, asked: Histories, wanted: Sequences, mask: bool, k: int, audit: NDArray[np.bool_]) -> Judged:
    owner, items = wanted.owner, wanted.items
    other = scores if mask or not audit.any() else hide(scores.copy(), asked, np.nan)
    otherwise = rivals_ahead(other, owner[audit], items[audit])
    if mask:
        hide(scores, asked, np.nan)
    ahead = rivals_ahead(scores, owner, items)
    optimistic = rivals_ahead(scores, owner[audit], items[audit], pessimistic=False)
    np.nan_to_num(scores, copy=False, nan=-np.inf)
    lists = top_columns(scores, k) if k else np.zeros((len(scores), 0), dtype=np.int64)
    return Judged(ahead, optimistic, otherwise, lists)


def _joined(parts: SequenceOf[Judged]) -> Judged:
    return Judged(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Judged)))


def value(
    scorer: Scorer, questions: Questions, n_items: int, *, mask: bool, k: int, threads: int = 1
) -> NDArray[np.float64]:
    """NDCG@k of every question: what tuning maximises."""
    judged = judge(lambda asked: {"": scorer(asked)}, questions, n_items, mask=mask, k=0, threads=threads)
    return table(judged[""].ahead, questions, [f"ndcg@{k}"])[f"ndcg@{k}"]


def table(ahead: NDArray[np.float64], questions: Questions, names: SequenceOf[str]) -> dict[str, NDArray[np.float64]]:
    """Each metric of every question, float64 [Q]."""
    return per_shopper(ranks_from_ahead(ahead, questions.relevant.owner, len(questions)), names)
