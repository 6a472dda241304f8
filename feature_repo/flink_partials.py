"""What an event adds to which tiles, as SQL: one SELECT per view, feed and tile length, all of one shape. Pure.

Every tile of every view is a row of one relation: whose it is, which part (`tiles`; `distinct:<column>` and
`top:<column>`, a row per value), which tile, and columns of partial results that each view uses from the left. So one
GROUP BY keeps them all. The k newest values are a relation of their own, because they are ranked, not added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from feature_repo import flink_events as source
from feature_repo.aggregations.base import Kind
from feature_repo.aggregations.family import AGGREGATIONS
from feature_repo.facts import on_element
from feature_repo.layout import Feed, Layout, layout_of
from feature_repo.plan import FeaturePlan
from feature_repo.windows import DAY_MS

KEY: Final = ("view", "entity", "part", "tile_ms", "tile", "of_value")
NEWEST_TILE_MS: Final = DAY_MS
PARTIAL: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "count": ("n", "BIGINT", "SUM"), "sum": ("n", "BIGINT", "SUM"), "min": ("lo", "BIGINT", "MIN"),
    "max": ("hi", "BIGINT", "MAX"), "squares": ("sq", "DECIMAL(38, 0)", "SUM")}
"""Kind of partial -> the prefix of its columns in `tiles`, their type, and how two of them are merged."""

TILES, DISTINCT, TOP, NEWEST = "tiles", "distinct", "top", "newest"

_TILE: Final = "GROUP BY key and tile: "
EXPRESSIBLE: Final[Mapping[str, str]] = {
    "count": _TILE + "SUM(1)",
    "sum": _TILE + "SUM(x)",
    "mean": _TILE + "SUM(x) and the number of x",
    "min": _TILE + "MIN(x)",
    "max": _TILE + "MAX(x)",
    "std": _TILE + "SUM(x), the number of x, and SUM(x * x) as DECIMAL(38, 0)",
    "ratio": _TILE + "both columns, divided when read",
    "decayed": _TILE + "SUM(x) or SUM(1), weighted by age when read",
    "distinct": "GROUP BY key, tile and x: one record per value; exact or HyperLogLog when it is written to Redis",
    "top_k": "GROUP BY key, tile and x: SUM(1) per value, ranked when read",
    "last": "Top-1 by event time and x, per key and day",
    "last_k": "Top-k by event time and x, per key and day, ARRAY_AGG",
}
"""Function -> what the SQL keeps for it. A function that is not here cannot be expressed, and `why_not` says so."""
_NO_SQL: Final = "has no Flink SQL"


def table_of_functions() -> str:
    """EXPRESSIBLE as a Markdown table; a function that is missing there says so."""
    rows = [f"| `{a.name}` | {a.formula} | {EXPRESSIBLE.get(a.name, _NO_SQL)} |" for a in AGGREGATIONS.values()]
    return "\n".join(["| function | value | what the SQL keeps |", "| --- | --- | --- |", *rows])


def why_not(plan: FeaturePlan) -> dict[str, str]:
    """Feature -> why SQL cannot keep it; empty for the functions of EXPRESSIBLE."""
    return {f.name: f"{f.function} {_NO_SQL}" for view in plan.declared_views for f in view.declared
            if f.function not in EXPRESSIBLE}


def columns(plan: FeaturePlan) -> dict[str, tuple[str, str]]:
    """The columns of partial results in `tiles`: name -> (type, how two are merged); as many as the widest tile."""
    found: dict[str, tuple[str, str]] = {}
    for view in plan.declared_views:
        for level in layout_of(view).levels:
            for name, slot in zip(names_of(slot.kind for slot in level.slots), level.slots, strict=True):
                _, kind, how = PARTIAL[slot.kind]
                found[name] = kind, how
    order = list(dict.fromkeys(prefix for prefix, _, _ in PARTIAL.values()))
    found.setdefault("n0", ("BIGINT", "SUM"))
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0].rstrip("0123456789")),
                                                        int(item[0].lstrip("nlohisq")))))


def names_of(kinds: Iterable[Kind]) -> list[str]:
    """The column of `tiles` that holds each slot of a level: n0, n1, ... for counts and sums, lo0, ... for minima."""
    used: dict[str, int] = {}
    names = []
    for kind in kinds:
        prefix = PARTIAL[kind][0]
        names.append(f"{prefix}{used.setdefault(prefix, 0)}")
        used[prefix] += 1
    return names


def partials(plan: FeaturePlan) -> Iterator[str]:
    """One SELECT per (view, feed) and level, distinct or top slot: what a row adds to a tile."""
    for view in plan.declared_views:
        layout = layout_of(view)
        for feed in layout.feeds:
            for at, level in enumerate(layout.levels):
                if feed.level_ops[at]:
                    names = names_of(slot.kind for slot in level.slots)
                    adds = {names[slot]: _added(kind, value(feed, feed.values[i]) if i >= 0 else None)
                            for slot, kind, i in feed.level_ops[at]}
                    yield _partial(plan, layout, feed, TILES, level.tile_ms, adds)
            for name, slots, ops in ((DISTINCT, layout.distinct, feed.distinct_ops), (TOP, layout.top, feed.top_ops)):
                for at, i in ops:
                    yield _partial(plan, layout, feed, f"{name}:{slots[at].column}", slots[at].tile_ms, {"n0": "1"},
                                   value(feed, feed.values[i]))


def newest(plan: FeaturePlan) -> Iterator[str]:
    """One SELECT per (view, feed) and slot of newest values: the facts that compete."""
    for view in plan.declared_views:
        layout = layout_of(view)
        for feed in layout.feeds:
            for at, i in feed.last_ops:
                slot, of = layout.last[at], value(feed, feed.values[i])
                if lists(layout)[slot.column] != slot.k:
                    continue  # read from the longer list of the same column
                yield (f"SELECT {_where(layout, feed)}, {source.text(f'{NEWEST}:{slot.column}')} AS part, "
                       f"{slot.k} AS k, event_time / {NEWEST_TILE_MS} AS tile, event_time, "
                       f"CAST({of} AS STRING) AS of_value, arrival\n"
                       f"FROM {source.relation(feed.topic, feed.each)} WHERE {_present(layout, feed, of)}")


def lists(layout: Layout) -> dict[str, int]:
    """Column -> the length of the longest list of its newest values."""
    return {slot.column: slot.k for slot in sorted(layout.last, key=lambda slot: slot.k)}


def has_newest(plan: FeaturePlan) -> bool:
    return any(layout_of(view).last for view in plan.declared_views)


def value(feed: Feed, fields: tuple[str, ...]) -> str:
    """A value of a row of a feed: one field, or the product of two. Raises ValueError for a field that is not there."""
    for name in fields:
        on_element(feed, name)
    return " * ".join(f"`{name}`" for name in fields)


def _added(kind: Kind, of: str | None) -> str:
    """What one row adds to a partial; NULL adds nothing."""
    if of is None:
        return "1"
    if kind == "count":
        return f"CASE WHEN {of} IS NOT NULL THEN 1 END"
    if kind == "squares":
        return f"CAST({of} AS DECIMAL(19, 0)) * CAST({of} AS DECIMAL(19, 0))"
    return of


def _partial(plan: FeaturePlan, layout: Layout, feed: Feed, part: str, tile_ms: int, adds: Mapping[str, str],
             of: str = "") -> str:
    added = ", ".join(f"CAST({adds.get(name, 'NULL')} AS {kind}) AS {name}"
                      for name, (kind, _) in columns(plan).items())
    of_value = f"CAST({of} AS STRING)" if of else "''"
    return (f"SELECT {_where(layout, feed)}, {source.text(part)} AS part, CAST({tile_ms} AS BIGINT) AS tile_ms, "
            f"event_time / {tile_ms} AS tile, {of_value} AS of_value, arrival,\n    {added}\n"
            f"FROM {source.relation(feed.topic, feed.each)} WHERE {_present(layout, feed, of)}")


def _where(layout: Layout, feed: Feed) -> str:
    """The view and the key of a row: ids and labels hold no control characters, so that one may stand between them."""
    keys = " || CHR(31) || ".join(value(feed, (name,)) for name in layout.view.join_keys)
    return f"{source.text(layout.view.name)} AS `view`, {keys} AS entity"


def _present(layout: Layout, feed: Feed, of: str) -> str:
    wanted = [value(feed, (name,)) for name in layout.view.join_keys] + ([of] if of else [])
    return " AND ".join(f"{name} IS NOT NULL" for name in wanted)
