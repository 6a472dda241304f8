"""From the sources' lists to one pool of candidates: union, fusion, cut, and never fewer than the answer needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from services.recommender.shelf import Shelf
from services.recommender.terms import Pool, Rows, Scores

POOL: Final = 1000
PRERANKED: Final = 200
_RRF_OFFSET: Final = 60.0  # Cormack, Clarke and Buettcher 2009


def pool_of(found: Mapping[str, Rows], shelf: Shelf, k: int) -> Pool:
    """The sellable union of the sources' rows, at most POOL, best first by reciprocal-rank fusion.

    Where they bring fewer than 2k, popular and then any sellable products fill up (from no source).
    """
    everything = np.concatenate([*found.values(), np.zeros(0, np.int64)])
    rows = np.unique(everything)
    rows = rows[shelf.table.sellable[rows]]
    if len(rows) < 2 * k:
        rows = _filled(rows, shelf, 2 * k)
    ranks = {name: _ranks(given, rows) for name, given in found.items()}
    fused = np.zeros(len(rows))
    for rank in ranks.values():
        fused += 1.0 / (_RRF_OFFSET + np.nan_to_num(rank, nan=np.inf))
    best = np.lexsort((rows, -shelf.table.popularity[rows], -fused))[:POOL]
    return Pool(rows, ranks, fused).take(best)


def _filled(rows: Rows, shelf: Shelf, wanted: int) -> Rows:
    fill = shelf.popular[~np.isin(shelf.popular, rows)]
    rows = np.concatenate([rows, fill[: wanted - len(rows)]])
    return np.unique(rows)


def _ranks(given: Rows, rows: Rows) -> Scores:
    """1-based place of each of `rows` in `given`, NaN where it is not in it. `rows` are sorted."""
    ranks = np.full(len(rows), np.nan)
    if len(rows) and len(given):
        place = np.minimum(np.searchsorted(rows, given), len(rows) - 1)
        hit = rows[place] == given
        ranks[place[hit]] = np.flatnonzero(hit) + 1.0
    return ranks
