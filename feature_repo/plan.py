"""The compiled feature plan: what `features.py` declares with Feast, as plain data. Pure: needs no Feast, no network.

`pipelines/apply_features` writes it as JSON; the stream worker, the recommender and the offline SQL read it. The
SHA-256 of what is computed is the version of the feature set; descriptions, owners and services do not change it.

    view      one value of packed tiles per entity key
    feed      how one event type becomes rows of that view: the topic and the list field that is exploded, if any
    column    one input column of the view, taken from one feed or from several
    feature   one aggregation of one column over one window; `last` and `last_k` have no window
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from feature_repo.about import About, AttributeView, Listed, Service
from feature_repo.aggregations.base import Aggregation
from feature_repo.aggregations.family import AGGREGATIONS, parse
from feature_repo.windows import WINDOWS, Window, duration_text

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

    @property
    def valued(self) -> bool:
        """Whether its rows carry a value; else they are counted."""
        return bool(self.sources[0].value)


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One named feature. `window` is a name of WINDOWS, empty for last and last_k; `k`, `other` (a ratio's denominator)
    and `half_life_ms` are set for the functions that need them."""

    name: str
    column: str
    function: str
    window: str = ""
    k: int = 0
    other: str = ""
    half_life_ms: int = 0

    @property
    def span(self) -> Window:
        return WINDOWS[self.window]

    @property
    def aggregation(self) -> Aggregation:
        return AGGREGATIONS[self.function]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (self.column, self.other) if self.other else (self.column,)

    @property
    def meaning(self) -> str:
        """What it is, in words."""
        half_life = duration_text(self.half_life_ms) if self.half_life_ms else ""
        text = self.aggregation.meaning.format(column=self.column, other=self.other, k=self.k, window=self.window,
                                               half_life=half_life)
        return text.replace("_", " ")


class ViewPlan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One view: its entity, join keys (also the names of the key's fields on a row), columns and features, in order."""

    name: str
    entity: str
    join_keys: tuple[str, ...]
    columns: tuple[Column, ...]
    declared: tuple[Feature, ...]
    about: About = About()

    def __post_init__(self) -> None:
        for column in self.columns:
            if len({bool(s.value) for s in column.sources}) > 1:
                raise ValueError(f"{self.name}.{column.name}: either all of its sources have a value or none")
        for feature in self.declared:
            self._check(feature)
        if len({f.name for f in self.declared}) != len(self.declared):
            raise ValueError(f"{self.name}: two features have one name")

    def _check(self, feature: Feature) -> None:
        known = {c.name for c in self.columns}
        for column in feature.columns:
            if column not in known:
                raise ValueError(f"{feature.name}: column {column!r} is not one of {sorted(known)}")
        if feature.function not in AGGREGATIONS:
            raise ValueError(f"{feature.name}: {feature.function!r} is not one of {', '.join(AGGREGATIONS)}")
        of = feature.aggregation
        if of.windowed != (feature.window in WINDOWS):
            raise ValueError(f"{feature.name}: {feature.function} over window {feature.window!r}; "
                             f"windows are {', '.join(WINDOWS)}, last and last_k have none")
        if of.takes != "rows" and feature.column not in self.valued:
            raise ValueError(f"{feature.name}: {feature.function} needs a column with a value")
        if of.argument and not getattr(feature, of.argument):
            raise ValueError(f"{feature.name}: {feature.function} needs {of.argument}")

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.declared)

    @cached_property
    def feeds(self) -> tuple[tuple[str, str], ...]:
        """The distinct (topic, exploded field) pairs, in order of declaration."""
        return tuple(dict.fromkeys((s.topic, s.each) for c in self.columns for s in c.sources))

    @cached_property
    def valued(self) -> frozenset[str]:
        """The columns that have a value."""
        return frozenset(c.name for c in self.columns if c.valued)

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
    """Every view of the feature set, and the services that read them."""

    project: str
    declared_views: tuple[ViewPlan, ...]
    attribute_views: tuple[AttributeView, ...] = ()
    services: tuple[Service, ...] = ()

    def __post_init__(self) -> None:
        for service in self.services:
            known = {f for name in service.views if name in self.views for f in self.view(name).features}
            for feature in service.on_request:
                if unknown := set(feature.stored) - known:
                    raise ValueError(f"{feature.name}: {sorted(unknown)} are not features of {service.name}'s views")

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
        computed = [(v.name, v.entity, v.join_keys, v.columns, v.declared) for v in self.declared_views]
        return hashlib.sha256(msgspec.json.encode((self.project, computed))).hexdigest()

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

    def service(self, name: str) -> Service:
        """Raises KeyError."""
        found = {s.name: s for s in self.services}
        return found[name]

    def listing(self) -> list[Listed]:
        """Every feature with what a registry page says of it, in order of declaration."""
        readers = {view: tuple(s.name for s in self.services if view in s.views)
                   for view in {v for s in self.services for v in s.views}}
        out = []
        for view in self.declared_views:
            for f in view.declared:
                column_topics = {s.topic for name in f.columns for s in view.column(name).sources}
                out.append(_listed(view.about, name=f.name, view=view.name, entity=view.entity,
                                   dtype=f.aggregation.dtype, meaning=f.meaning, error=f.aggregation.error,
                                   topics=tuple(sorted(column_topics)), services=readers.get(view.name, ())))
        for plain in self.attribute_views:
            out += [_listed(plain.about, name=name, view=plain.name, entity=plain.entity, dtype=dtype, meaning="",
                            error="exact", topics=(), services=readers.get(plain.name, ()))
                    for name, dtype in plain.fields.items()]
        for service in self.services:
            for made in service.on_request:
                about = About(description=service.description, owner=service.owner, kind="request")
                out.append(_listed(about, name=made.name, view="", entity="request", dtype="float64", topics=(),
                                   meaning=f"{made.how} of the request's {made.request} to {' and '.join(made.stored)}",
                                   error="rounding", services=(service.name,)))
        return out


def _listed(about: About, **fields: object) -> Listed:
    return msgspec.convert({**fields, "owner": about.owner, "kind": about.kind, "tags": about.tags,
                            "freshness_sla_s": about.freshness_sla_s}, Listed)


def compile_view(name: str, entity: str, join_keys: tuple[str, ...], columns: dict[str, str],
                 aggregations: list[tuple[str, str, int, str]], about: About | None = None) -> ViewPlan:
    """A view from its declaration.

    `columns` maps a column to `topic[/exploded field][:value]`, or to several of these apart by spaces; an aggregation
    is (column, function as `family.parse` reads it, window in ms or 0, feature name). Raises ValueError on what cannot
    be computed.
    """
    names = {w.length_ms: w.name for w in WINDOWS.values()}
    features = [
        {"name": feature, "column": column, "window": names.get(ms, f"{ms} ms") if ms else "", **parse(function)}
        for column, function, ms, feature in aggregations]
    parsed = []
    for column, text in columns.items():
        sources = []
        for part in text.split():
            source, _, value = part.partition(":")
            topic, _, each = source.partition("/")
            sources.append({"topic": topic, "each": each, "value": value})
        parsed.append({"name": column, "sources": sources})
    return msgspec.convert({"name": name, "entity": entity, "join_keys": join_keys, "columns": parsed,
                            "declared": features, "about": about or About()}, ViewPlan)
