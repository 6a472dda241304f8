"""What the shop can show now, as columns: the catalogue, the models' rows and the item windows, aligned by row.

A shelf is immutable and swapped whole, so a request sees one moment. Rows 0..N-1 are the index's items; rows above are
items listed since, embedded from their category and price. A table is built once for its models and amended with every
change of the catalogue; what a renewal costs goes with what changed, not with the size of the catalogue. Building is
pure; when to build is `keeper.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """The half of a shelf that changes only with the catalogue or the models. Columns are [n]."""

    lineup: Lineup
    catalogue_version: int
    ids: NDArray[Any]
    newer_row_of: Mapping[str, int]
    """Rows of the items that the models do not know."""
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

    def row(self, item_id: str) -> int:
        """The row of an item, -1 if it has none."""
        row = self.lineup.row_of.get(item_id)
        return self.newer_row_of.get(item_id, -1) if row is None else row


@dataclass(frozen=True)
class Activity:
    """The item windows of one moment, in the order of those who keep them, and where each row of a table stands there.

    Empty when they were never read.
    """

    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    place: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """By row of the table: its place in the columns, -1 where nobody touched it yet."""
    rows: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """The rows that somebody touched, ascending."""
    seen: int = 0
    """So many items of the columns are placed."""

    def of(self, rows: Rows) -> dict[str, NDArray[np.float64]]:
        """The windows that ranking reads, [n] each, of n rows; 0 where nobody touched the item yet."""
        if not self.columns:
            return {}
        place = self.place[rows]
        touched = np.flatnonzero(place >= 0)
        out = {}
        for name in ITEM:
            if name in self.columns:
                column = out[name] = np.zeros(len(rows))
                column[touched] = self.columns[name][place[touched]]
        return out


@dataclass(frozen=True)
class Fresh:
    """What is new at a moment, which holds until `until_ms`."""

    rows: Rows
    """Newest first."""
    flags: NDArray[np.bool_]
    until_ms: float


@dataclass(frozen=True)
class Shelf:
    """A table with the item windows of one moment."""

    table: Table
    built_ms: int
    activity: Activity
    trending: Rows
    fresh: Fresh

    @property
    def lineup(self) -> Lineup:
        return self.table.lineup

    @property
    def popular(self) -> Rows:
        """What can be bought, most popular first."""
        return self.table.popular

    @property
    def new_items(self) -> Rows:
        """Newest first."""
        return self.fresh.rows

    @property
    def new(self) -> NDArray[np.bool_]:
        """By row: listed lately."""
        return self.fresh.flags

    @property
    def indexed(self) -> int:
        """Rows below this are in the index."""
        return 0 if self.lineup.index is None else len(self.lineup.index)

    def row(self, item_id: str) -> int:
        """The row of an item, -1 if it is not on the shelf."""
        return self.table.row(item_id)

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
    found = [listed.get(item_id) for item_id in ids]
    categories = tuple(sorted({item.category for item in items}))
    code = {category: i for i, category in enumerate(categories)}
    extra_prices = np.array([item.price_cents for item in extras], np.float64)
    said = _said(found, code)
    popularity = np.concatenate([lineup.popularity, np.zeros(len(extras))])
    extra = lineup.encode_items([item.category for item in extras], extra_prices)
    return Table(
        lineup=lineup,
        catalogue_version=version,
        ids=np.array(ids, dtype=object),
        newer_row_of={item.item_id: len(lineup.items) + i for i, item in enumerate(extras)},
        categories=categories,
        **said,
        popularity=popularity,
        extra=extra,
        newer=None if extra is None or lineup.index is None else AnnIndex.build(extra),
        popular=_best(popularity, said["sellable"], POPULAR),
    )


def _said(items: Sequence[ItemListed | None], code: Mapping[str, int]) -> dict[str, Any]:
    """Columns by name: what the catalogue says of each item, None for one that it does not hold."""
    return {
        "sellable": np.array([item is not None and item.stock > 0 for item in items], bool),
        "category": np.array([-1 if item is None else code[item.category] for item in items], np.int32),
        "price_cents": np.array([np.nan if item is None else item.price_cents for item in items], np.float64),
        "listed_at": np.array([np.nan if item is None else item.listed_at for item in items], np.float64),
        "promoted": np.array([item is not None and item.promoted for item in items], bool),
        "adult": np.array([item is None or item.adult for item in items], bool),
    }


def amended(table: Table, changes: Mapping[str, ItemListed | None], version: int) -> Table | None:
    """The table after `changes` of the catalogue: item -> its new state, None for one that is gone.

    None where only a new table will do: for an item of a category that has no code here, or that cannot be embedded.
    """
    code = {category: i for i, category in enumerate(table.categories)}
    if any(item is not None and item.category not in code for item in changes.values()):
        return None
    longer = _longer(table, [i.item_id for name, i in changes.items() if i is not None and table.row(name) < 0])
    known = [(row, item) for name, item in changes.items() if (row := longer.row(name)) >= 0]
    rows = np.array([row for row, _ in known], np.int64)
    columns = {}
    for name, values in _said([item for _, item in known], code).items():
        column = columns[name] = getattr(longer, name).copy()
        column[rows] = values
    same = np.array_equal(columns["sellable"][rows], longer.sellable[rows])
    popular = table.popular if same else _best(longer.popularity, columns["sellable"], POPULAR)
    found = _embedded(longer, [(row, item) for row, item in known if item is not None])
    return found and replace(found, catalogue_version=version, popular=popular, **columns)


def _longer(table: Table, names: Sequence[str]) -> Table:
    """With rows for items that have none yet; what they hold is still to be said."""
    n, columns = len(table.ids), ("sellable", "category", "price_cents", "listed_at", "promoted", "adult", "popularity")
    if not names:
        return table
    longer: dict[str, Any] = {
        c: np.concatenate([(own := getattr(table, c)), np.zeros(len(names), own.dtype)]) for c in columns
    }
    rows = {name: row for row, name in enumerate(names, start=n)}
    return replace(table, ids=np.concatenate([table.ids, np.array(names, dtype=object)]),
                   newer_row_of={**table.newer_row_of, **rows}, **longer)  # fmt: skip


def _embedded(table: Table, known: Sequence[tuple[int, ItemListed]]) -> Table | None:
    """With the embeddings of those of `known`, rows with their items, that the models do not know; None if one has
    none."""
    lineup = table.lineup
    newer = [(row - len(lineup.items), item) for row, item in known if row >= len(lineup.items)]
    if lineup.item_encoder is None or not newer:
        return table
    prices = np.array([item.price_cents for _, item in newer], np.float64)
    vectors = lineup.encode_items([item.category for _, item in newer], prices)
    if vectors is None:
        return None
    extra = np.zeros((len(table.newer_row_of), vectors.shape[1]), np.float32)
    before = 0 if table.extra is None else len(table.extra)
    if table.extra is not None:
        extra[:before] = table.extra
    places = [place for place, _ in newer]
    if len(extra) == before and np.array_equal(extra[places], vectors):
        return table
    extra[places] = vectors
    return replace(table, extra=extra, newer=None if lineup.index is None else AnnIndex.build(extra))


def stock_shelf(table: Table, activity: Activity, now_ms: int, before: Shelf | None = None) -> Shelf:
    """Put the item windows on the table and order what is trending and new; what still holds is taken from `before`."""
    kept = before if before is not None and before.table is table else None
    fresh = kept.fresh if kept and kept.built_ms <= now_ms < kept.fresh.until_ms else _fresh(table, now_ms)
    trending = kept.trending if kept and kept.activity is activity else _trending(table, activity)
    return Shelf(table=table, built_ms=now_ms, activity=activity, trending=trending, fresh=fresh)


def activity_of(
    table: Table, columns: Mapping[str, NDArray[Any]], items: Sequence[str], place_of: Callable[[str], int],
    before: Activity,
) -> Activity:  # fmt: skip
    """The windows of `items`, which only ever become more, in the order of `columns`, which may be some items behind.

    `place_of` is an item's place among them, -1 for none; `before` is this for the same table or a shorter one.
    """
    if before.columns is columns and len(before.place) == len(table.ids):
        return before
    size = min((len(column) for column in columns.values()), default=0)
    added = enumerate(items[before.seen : size], start=before.seen)
    found = [(row, i) for i, name in added if (row := table.row(name)) >= 0]
    place, rows, n = before.place, before.rows, len(before.place)
    if n < len(table.ids):
        place = np.concatenate([place, np.full(len(table.ids) - n, -1, np.int64)])
        if before.seen:
            more = np.array([place_of(name) for name in table.ids[n:].tolist()], np.int64)
            place[n:] = np.where(more < size, more, -1)
    elif found:
        place = place.copy()
    if found:
        at, places = np.array(found, np.int64).T
        place[at] = places
    if place is not before.place:
        rows = np.flatnonzero(place >= 0)
    return Activity(columns, place, rows, max(size, before.seen))


def _trending(table: Table, activity: Activity) -> Rows:
    """The most wanted: among what somebody touched and what is popular, because elsewhere there is no heat."""
    rows = np.union1d(activity.rows, table.popular)
    rows = rows[table.sellable[rows]]
    scores = trending_scores(activity.of(rows), table.popularity[rows])
    return rows[top_rows(scores, SIZES["trending"])].astype(np.int64)


def _fresh(table: Table, now_ms: int) -> Fresh:
    listed, lasting = table.listed_at, NEW_HOURS * HOUR_MS
    age_hours = np.where(table.sellable, (now_ms - listed) / HOUR_MS, np.inf)
    flags = (age_hours >= 0) & (age_hours <= NEW_HOURS)
    coming = listed[table.sellable & (listed > now_ms)]
    until = min(coming.min(initial=np.inf), listed[flags].min(initial=np.inf) + lasting)
    return Fresh(newest_rows(age_hours, SIZES["new_items"]), flags, until)


def _best(scores: NDArray[np.float64], allowed: NDArray[np.bool_], limit: int) -> Rows:
    rows = np.flatnonzero(allowed)
    return rows[top_rows(scores[rows], limit)].astype(np.int64)
