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
    rows = _distinct(np.concatenate([*found.values(), np.zeros(0, np.int64)]))
    rows = rows[shelf.table.sellable[rows]]
    if len(rows) < 2 * k:
        rows = _filled(rows, shelf, 2 * k)
    ranks, fused = {}, np.zeros(len(rows))
    for name, given in found.items():
        at, places = _hits(given, rows)
        ranks[name] = rank = np.full(len(rows), np.nan)
        rank[at] = places
        fused[at] += 1.0 / (_RRF_OFFSET + places)
    best = np.lexsort((-shelf.table.popularity[rows], -fused))[:POOL]  # what is equal stays in order of rows
    return Pool(rows, ranks, fused).take(best)


def _filled(rows: Rows, shelf: Shelf, wanted: int) -> Rows:
    fill = shelf.popular[~np.isin(shelf.popular, rows)]
    return _distinct(np.concatenate([rows, fill[: wanted - len(rows)]]))


def _distinct(rows: Rows) -> Rows:
    """Ascending, each once: `np.unique`, which hashes and takes several times as long for a thousand."""
    rows = np.sort(rows)
    return rows[np.append(True, rows[1:] != rows[:-1])] if len(rows) else rows


def _hits(given: Rows, rows: Rows) -> tuple[Rows, Scores]:
    """Where those of `given` stand that are among `rows`, which are sorted, and their 1-based places in `given`."""
    if not len(rows) or not len(given):
        return np.zeros(0, np.int64), np.zeros(0)
    at = np.minimum(np.searchsorted(rows, given), len(rows) - 1)
    hit = rows[at] == given
    return at[hit], (np.flatnonzero(hit) + 1).astype(np.float64)
