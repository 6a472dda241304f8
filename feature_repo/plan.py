"""The compiled feature plan: what `features.py` declares with Feast, as plain data. Pure: needs no Feast, no network.

`pipelines/apply_features` writes it as JSON; the stream worker, the recommender and the offline SQL read it. Its
SHA-256 is the version of the feature set.

    view      one value of packed tiles per entity key
    feed      how one event type becomes rows of that view: the topic and the list field that is exploded, if any
    column    one input column of the view, taken from one feed or from several
    feature   one aggregation of one column over one window; `last` and `last_k` have no window
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec

from feature_repo.windows import WINDOWS, Window

Function = Literal["count", "sum", "mean", "min", "max", "distinct", "last", "last_k"]
WINDOWED: Final = frozenset({"count", "sum", "mean", "min", "max", "distinct"})
# What one element of an exploded list of plain values is called.
ELEMENT_NAME: Final = {"item_ids": "item_id"}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """`value`: empty (the row is counted), a field, or `a*b` of two fields. Fields of the exploded element win."""

    topic: str
    each: str = ""
    value: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.value.split("*")) if self.value else ()


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a view, from one feed or from several."""

    name: str
    sources: tuple[Source, ...]


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One named feature. `window` is a name of WINDOWS, empty for last and last_k; `k` only for last_k."""

    name: str
    column: str
    function: Function
    window: str = ""
    k: int = 0

    @property
    def span(self) -> Window:
        return WINDOWS[self.window]


class ViewPlan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One view: its entity, join keys (also the names of the key's fields on a row), columns and features, in order."""

    name: str
    entity: str
    join_keys: tuple[str, ...]
    columns: tuple[Column, ...]
    declared: tuple[Feature, ...]

    def __post_init__(self) -> None:
        known = {c.name for c in self.columns}
        for feature in self.declared:
            if feature.column not in known:
                raise ValueError(f"{feature.name}: column {feature.column!r} is not one of {sorted(known)}")
            if (feature.function in WINDOWED) != (feature.window in WINDOWS):
                raise ValueError(f"{feature.name}: {feature.function} over window {feature.window!r}; "
                                 f"windows are {', '.join(WINDOWS)}, last and last_k have none")
            if feature.function not in ("count",) and not all(s.value for s in self.column(feature.column).sources):
                raise ValueError(f"{feature.name}: {feature.function} needs a column with a value")
        if len({f.name for f in self.declared}) != len(self.declared):
            raise ValueError(f"{self.name}: two features have one name")

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.declared)

    @cached_property
    def feeds(self) -> tuple[tuple[str, str], ...]:
        """The distinct (topic, exploded field) pairs, in order of declaration."""
        return tuple(dict.fromkeys((s.topic, s.each) for c in self.columns for s in c.sources))

    @property
    def rekeyed(self) -> bool:
        """Whether its rows travel to the partition of their own key; shopper events are keyed by user_id."""
        return self.join_keys[0] != "user_id"

    @property
    def stored(self) -> str:
        """The name of the one stored value, the packed tiles; distinct, because a service may join several views."""
        return f"{self.name}_tiles"

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)


class FeaturePlan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Every view of the feature set."""

    project: str
    declared_views: tuple[ViewPlan, ...]

    @classmethod
    def load(cls, path: Path) -> FeaturePlan:
        """Read plan.json. Raises FileNotFoundError, or ValueError when it is not a plan."""
        return cls.parse(path.read_bytes())

    @classmethod
    def parse(cls, payload: bytes) -> FeaturePlan:
        try:
            return msgspec.json.decode(payload, type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a feature plan: {error}") from None

    def dump(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def version(self) -> str:
        return self.sha256[:12]

    @cached_property
    def views(self) -> dict[str, ViewPlan]:
        return {v.name: v for v in self.declared_views}

    @cached_property
    def topics(self) -> tuple[str, ...]:
        """The topics that any view is fed from, sorted."""
        return tuple(sorted({topic for v in self.declared_views for topic, _ in v.feeds}))

    def view(self, name: str) -> ViewPlan:
        return self.views[name]


def compile_view(name: str, entity: str, join_keys: tuple[str, ...], columns: dict[str, str],
                 aggregations: list[tuple[str, str, int, str]]) -> ViewPlan:
    """A view from its declaration.

    `columns` maps a column to `topic[/exploded field][:value]`, or to several of these apart by spaces; an aggregation
    is (column, function, window in ms or 0, feature name), where the function may be `last_<k>`. Raises ValueError on
    what cannot be computed.
    """
    names = {w.length_ms: w.name for w in WINDOWS.values()}
    features = []
    for column, function, window_ms, feature in aggregations:
        kind, _, k = function.partition("_")
        features.append({"name": feature, "column": column, "function": "last_k" if k else kind,
                         "window": names.get(window_ms, f"{window_ms} ms") if window_ms else "", "k": int(k or 0)})
    parsed = []
    for column, text in columns.items():
        sources = []
        for part in text.split():
            source, _, value = part.partition(":")
            topic, _, each = source.partition("/")
            sources.append({"topic": topic, "each": each, "value": value})
        parsed.append({"name": column, "sources": sources})
    return msgspec.convert({"name": name, "entity": entity, "join_keys": join_keys, "columns": parsed,
                            "declared": features}, ViewPlan)
