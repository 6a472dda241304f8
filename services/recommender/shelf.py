"""What the shop can show now, as columns: the catalogue, the models' rows and the item windows, aligned by row.

A shelf is immutable and swapped whole, so a request sees one moment. Rows 0..N-1 are the index's items; rows above are
items listed since, embedded from their category and price. Building one is pure; when to build is `keeper.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.events import ItemListed
from feature_repo.windows import HOUR_MS
from models.ann_index import AnnIndex
from models.ranking_features import ITEM
from models.retrieval import NEW_HOURS, SIZES, newest_rows, top_rows, trending_scores
from services.recommender.lineup import Lineup
from services.recommender.terms import Rows

POPULAR: Final = 2000  # rows kept in order of popularity, to fill up with


@dataclass(frozen=True)
class Table:
    """The slow half of a shelf: what changes only with the catalogue or the models. Columns are [n]."""

    lineup: Lineup
    catalogue_version: int
    ids: NDArray[Any]
    row_of: Mapping[str, int]
    sellable: NDArray[np.bool_]
    category: NDArray[np.int32]
    """Code into `categories`."""
    categories: tuple[str, ...]
    price_cents: NDArray[np.float64]
    listed_at: NDArray[np.float64]
    promoted: NDArray[np.bool_]
    adult: NDArray[np.bool_]
    """For adults only; what the catalogue does not hold counts as that."""
    popularity: NDArray[np.float64]
    extra: NDArray[np.float32] | None
    """Embeddings [n - N, d] of the items newer than the index."""
    newer: AnnIndex | None
    """Those embeddings, searchable; its row i is row N + i here."""
    popular: Rows
    """What can be bought, most popular first, at most POPULAR."""


@dataclass(frozen=True)
class Shelf:
    """A table with the item windows of one moment. `activity` is empty when they were never read."""

    table: Table
    built_ms: int
    activity: Mapping[str, NDArray[np.float64]]
    trending: Rows
    new_items: Rows
    """Newest first."""
    new: NDArray[np.bool_]

    @property
    def lineup(self) -> Lineup:
        return self.table.lineup

    @property
    def popular(self) -> Rows:
        """What can be bought, most popular first."""
        return self.table.popular

    @property
    def indexed(self) -> int:
        """Rows below this are in the index."""
        return 0 if self.lineup.index is None else len(self.lineup.index)

    def row(self, item_id: str) -> int:
        """The row of an item, -1 if it is not on the shelf."""
        return self.table.row_of.get(item_id, -1)

    def embeddings(self, rows: Rows) -> NDArray[np.float32] | None:
        """[n, d] L2-normalised, zeros where there is none; None without an index."""
        index, extra = self.lineup.index, self.table.extra
        if index is None:
            return None
        out = np.zeros((len(rows), index.dim), np.float32)
        old = rows < len(index)
        out[old] = index.vectors(rows[old])
        if extra is not None:
            out[~old] = extra[rows[~old] - len(index)]
        return out


def build_table(lineup: Lineup, items: Sequence[ItemListed], version: int) -> Table:
    """Align the catalogue with the models' rows. Items that the catalogue does not hold are not sellable."""
    listed = {item.item_id: item for item in items}
    extras = [item for item in items if item.item_id not in lineup.row_of]
    ids = [*lineup.items, *(item.item_id for item in extras)]
    row_of = {**lineup.row_of, **{item.item_id: len(lineup.items) + i for i, item in enumerate(extras)}}
    found = [listed.get(item_id) for item_id in ids]
    categories = tuple(sorted({item.category for item in items}))
    code = {category: i for i, category in enumerate(categories)}
    extra_prices = np.array([item.price_cents for item in extras], np.float64)
    sellable = np.array([item is not None and item.stock > 0 for item in found], bool)
    popularity = np.concatenate([lineup.popularity, np.zeros(len(extras))])
    extra = lineup.encode_items([item.category for item in extras], extra_prices)
    return Table(
        lineup=lineup,
        catalogue_version=version,
        ids=np.array(ids, dtype=object),
        row_of=row_of,
        sellable=sellable,
        category=np.array([code[item.category] if item else -1 for item in found], np.int32),
        categories=categories,
        price_cents=np.array([item.price_cents if item else np.nan for item in found], np.float64),
        listed_at=np.array([item.listed_at if item else np.nan for item in found], np.float64),
        promoted=np.array([item is not None and item.promoted for item in found], bool),
        adult=np.array([item is None or item.adult for item in found], bool),
        popularity=popularity,
        extra=extra,
        newer=None if extra is None or lineup.index is None else AnnIndex.build(extra),
        popular=_best(popularity, sellable, POPULAR),
    )


def stock_shelf(table: Table, activity: Mapping[str, NDArray[np.float64]], now_ms: int) -> Shelf:
    """Put the item windows (aligned with the table's rows) on the table and order what is trending and new."""
    age_hours = np.where(table.sellable, (now_ms - table.listed_at) / HOUR_MS, np.inf)
    return Shelf(
        table=table,
        built_ms=now_ms,
        activity=activity,
        trending=_best(trending_scores(activity, table.popularity), table.sellable, SIZES["trending"]),
        new_items=newest_rows(age_hours, SIZES["new_items"]),
        new=(age_hours >= 0) & (age_hours <= NEW_HOURS),
    )


def align(columns: Mapping[str, NDArray[Any]], rows: Rows) -> dict[str, NDArray[np.float64]]:
    """The windows that ranking reads in the order of `rows` into `columns`; 0 for row -1: nobody touched it yet."""
    out, touched = {}, np.flatnonzero(rows >= 0)
    for name in ITEM:
        if name in columns:
            column = out[name] = np.zeros(len(rows))
            column[touched] = columns[name][rows[touched]]
    return out


def activity_rows(table: Table, items: Sequence[str], before: Rows | None, seen: int) -> Rows:
    """For every row of the table its place in the snapshot of windows, which holds `items` in order; -1 = not there.

    `before` is this of the first `seen` items, None for none; the snapshot only ever grows.
    """
    rows = np.full(len(table.ids), -1, np.int64) if before is None else before.copy()
    for place, item_id in enumerate(items[seen:], start=seen):
        row = table.row_of.get(item_id)
        if row is not None:
            rows[row] = place
    return rows


def _best(scores: NDArray[np.float64], allowed: NDArray[np.bool_], limit: int) -> Rows:
    rows = np.flatnonzero(allowed)
    return rows[top_rows(scores[rows], limit)].astype(np.int64)
