"""How `features.py` declares: a view with Feast's own objects, and the plan that is compiled from it.

Needs Feast, and knows no feature. Programs that serve read the compiled plan instead (`plan.py`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from feast import Entity, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from feast.transformation.python_transformation import PythonTransformation
from feast.types import Array, Bytes, Float64, Int64, String

from feature_repo.about import About
from feature_repo.facts import check_types
from feature_repo.layout import layout_of
from feature_repo.on_request import OnRequest
from feature_repo.plan import Feature, ViewPlan, compile_view
from feature_repo.windows import WINDOWS

_COLUMN = "column:"
_DTYPES = {"int64": Int64, "float64": Float64, "string": String, "list<string>": Array(String)}
clock = RequestSource(name="clock", schema=[Field(name="now_ms", dtype=Int64)])


def over(column: str, function: str, windows: str) -> list[Aggregation]:
    """One aggregation of a column per window, e.g. over("clicks", "count", "1h 24h")."""
    return [Aggregation(column=column, function=function, time_window=timedelta(milliseconds=WINDOWS[w].length_ms),
                        slide_interval=timedelta(milliseconds=WINDOWS[w].tile_ms)) for w in windows.split()]


def newest(column: str, name: str, k: int = 0) -> list[Aggregation]:
    """The newest value of a column, or the k newest, under a name of its own."""
    return [Aggregation(column=column, function=f"last_{k}" if k else "last", name=name)]


def stream_view(name: str, entities: list[Entity], prefix: str, *, description: str, columns: dict[str, str],
                features: list[list[Aggregation]], tags: dict[str, str], freshness_sla_s: int = 5,
                owner: str = "features") -> StreamFeatureView:
    """A stream view whose one stored field is its packed tiles; `columns` are kept as tags that begin with `column:`.

    `freshness_sla_s`: an event that has arrived is readable within so many seconds."""
    flat = [a for group in features for a in group]
    for a in flat:
        a.name = a.name or f"{prefix}_{a.column}_{a.function}_{_window(a)}"
    batch = FileSource(name=f"{name}_history", path=f"history/{name}.parquet", timestamp_field="event_timestamp")
    return StreamFeatureView(
        name=name, entities=entities, schema=[Field(name=f"{name}_tiles", dtype=Bytes)], aggregations=flat,
        tags=tags | {"kind": "stream", "freshness_sla_s": str(freshness_sla_s)}
        | {f"{_COLUMN}{column}": source for column, source in columns.items()},
        source=PushSource(name=f"{name}_stream", batch_source=batch), timestamp_field="event_timestamp", mode="python",
        ttl=timedelta(0), online=True, owner=owner, description=description)


def plan_of(view: StreamFeatureView, entities: list[Entity]) -> ViewPlan:
    """The compiled plan of a declared view. Raises ValueError on what cannot be computed."""
    columns = {k.removeprefix(_COLUMN): v for k, v in view.tags.items() if k.startswith(_COLUMN)}
    plan = compile_view(
        view.name, "_".join(e.name for e in entities), tuple(e.join_key for e in entities), columns,
        [(a.column, a.function, round(a.time_window / timedelta(milliseconds=1)) if a.time_window else 0, a.name)
         for a in view.aggregations], about_of(view))
    check_types(plan, layout_of(plan).feeds)
    return plan


def about_of(view: FeatureView | StreamFeatureView) -> About:
    """What a view says of itself, as plain data."""
    own = {k: v for k, v in view.tags.items() if not k.startswith(_COLUMN) and k not in ("kind", "freshness_sla_s")}
    return About(description=view.description, owner=view.owner, kind=view.tags["kind"], tags=own,
                 freshness_sla_s=int(view.tags["freshness_sla_s"]))


class WindowsOfTiles(PythonTransformation):  # type: ignore[misc]
    """Feast's python transformation with the declared types, which Feast cannot guess from missing values."""

    declared: dict[str, Field]

    def infer_features(self, random_input: dict[str, Any], singleton: bool | None = False) -> list[Field]:
        """Called by Feast on `apply` with random bytes."""
        return [self.declared[name] for name in self.udf(random_input)]


def windows_view(view: StreamFeatureView, plan: ViewPlan) -> OnDemandFeatureView:
    """The on-demand view that merges a view's tiles into its features at the request's `now_ms`."""
    return _on_demand(f"{view.name}_windows", "request_windows", msgspec.json.encode(plan).decode(), [view, clock],
                      [Field(name=f.name, dtype=_dtype(f)) for f in plan.declared], view.description)


def request_view(service: str, views: list[StreamFeatureView], plans: list[ViewPlan], declared: list[OnRequest]
                 ) -> OnDemandFeatureView:
    """The on-demand view of a service's features on request: of stored tiles, the clock and the request's numbers."""
    numbers = RequestSource(name=f"{service}_request", schema=[
        Field(name=request, dtype=Int64) for request in dict.fromkeys(f.request for f in declared)])
    return _on_demand(f"{service}_on_request", "request_features", msgspec.json.encode((plans, declared)).decode(),
                      [*views, clock, numbers], [Field(name=f.name, dtype=Float64) for f in declared],
                      f"features of a request to {service}")


def _on_demand(name: str, function: str, text: str, sources: list[Any], fields: list[Field], description: str
               ) -> OnDemandFeatureView:
    """An on-demand view that calls a function of `feature_repo.tiles` with `text` and the inputs.

    Feast keeps the function as its source text and runs that text when the registry is read.
    """
    source = (f"def {name}(inputs):\n"
              f"    from feature_repo import tiles\n"
              f"    return tiles.{function}({text!r}, inputs)\n")

    def merge(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        from feature_repo import tiles  # Feast pickles this function, not the module

        found: dict[str, list[Any]] = getattr(tiles, function)(text, inputs)
        return found

    merge.__name__ = name
    transformation = WindowsOfTiles(udf=merge, udf_string=source)
    transformation.declared = {f.name: f for f in fields}
    return OnDemandFeatureView(name=name, sources=sources, mode="python", owner="features", schema=fields,
                               description=description, feature_transformation=transformation)


def _window(a: Aggregation) -> str:
    return next(w.name for w in WINDOWS.values() if timedelta(milliseconds=w.length_ms) == a.time_window)


def _dtype(feature: Feature) -> Any:
    return _DTYPES[feature.aggregation.dtype]
