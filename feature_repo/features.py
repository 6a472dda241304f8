"""Every feature, declared once with Feast's own objects. To add one, add one line to a view's `features`.

`columns` says where a view's inputs come from: `topic[/exploded list field][:field or field*field]`, or several of
these apart by spaces. A feature is an aggregation of a column over windows of `windows.py`; it is named
`{prefix}_{column}_{function}_{window}`. Feast keeps the declarations, owners and lineage; our own code computes them,
because Feast's tiled aggregation cannot undo an extreme. Each view is one Feast value of bytes per key (packed tiles,
see `tiles.py`), which an on-demand view merges into windows at the request's `now_ms`. Needs Feast: programs that serve
read the compiled plan instead (`plan.py`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from feast.transformation.python_transformation import PythonTransformation
from feast.types import Array, Bool, Bytes, Float64, Int64, String
from feast.value_type import ValueType

from feature_repo.plan import FeaturePlan, ViewPlan, compile_view
from feature_repo.windows import WINDOWS

PROJECT = "minimart"

shopper = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a shopper")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="a listed product")
category = Entity(name="category", join_keys=["category"], value_type=ValueType.STRING, description="a category")


def over(column: str, function: str, windows: str) -> list[Aggregation]:
    """One aggregation of a column per window, e.g. over("clicks", "count", "1h 24h")."""
    return [Aggregation(column=column, function=function, time_window=timedelta(milliseconds=WINDOWS[w].length_ms),
                        slide_interval=timedelta(milliseconds=WINDOWS[w].tile_ms)) for w in windows.split()]


def newest(column: str, name: str, k: int = 0) -> list[Aggregation]:
    """The newest value of a column, or the k newest, under a name of its own."""
    return [Aggregation(column=column, function=f"last_{k}" if k else "last", name=name)]


def stream_view(name: str, entities: list[Entity], prefix: str, *, description: str, columns: dict[str, str],
                features: list[list[Aggregation]]) -> StreamFeatureView:
    """A stream view whose one stored field is its packed tiles; `columns` are kept as tags."""
    flat = [a for group in features for a in group]
    for a in flat:
        a.name = a.name or f"{prefix}_{a.column}_{a.function}_{_window(a)}"
    batch = FileSource(name=f"{name}_history", path=f"history/{name}.parquet", timestamp_field="event_timestamp")
    return StreamFeatureView(
        name=name, entities=entities, schema=[Field(name=f"{name}_tiles", dtype=Bytes)], aggregations=flat,
        tags=columns,
        source=PushSource(name=f"{name}_stream", batch_source=batch), timestamp_field="event_timestamp", mode="python",
        ttl=timedelta(0), online=True, owner="features", description=description)


def plan_of(view: StreamFeatureView, entities: list[Entity]) -> ViewPlan:
    """The compiled plan of a declared view."""
    return compile_view(
        view.name, "_".join(e.name for e in entities), tuple(e.join_key for e in entities), dict(view.tags),
        [(a.column, a.function, round(a.time_window / timedelta(milliseconds=1)) if a.time_window else 0, a.name)
         for a in view.aggregations])


class WindowsOfTiles(PythonTransformation):  # type: ignore[misc]
    """Feast's python transformation with the declared types, which Feast cannot guess from missing values."""

    def infer_features(self, random_input: dict[str, Any], singleton: bool | None = False) -> list[Field]:
        """Called by Feast on `apply` with random bytes."""
        found = self.udf(random_input)
        kinds = {f.name: _dtype(f.function) for v in PLAN.declared_views for f in v.declared}
        return [Field(name=name, dtype=kinds[name]) for name in found]


def windows_view(view: StreamFeatureView, plan: ViewPlan) -> OnDemandFeatureView:
    """The on-demand view that merges a view's tiles into its features at the request's `now_ms`.

    Feast keeps the function as its source text and runs that text when the registry is read.
    """
    name, text = f"{view.name}_windows", msgspec.json.encode(plan).decode()
    source = (f"def {name}(inputs):\n"
              f"    from feature_repo.tiles import request_windows\n"
              f"    return request_windows({text!r}, inputs)\n")

    def merge(inputs: dict[str, list[Any]]) -> dict[str, list[Any]]:
        from feature_repo.tiles import request_windows  # Feast pickles this function, not the module

        return request_windows(text, inputs)

    merge.__name__ = name
    return OnDemandFeatureView(
        name=name, sources=[view, clock], mode="python", owner="features", description=view.description,
        schema=[Field(name=f.name, dtype=_dtype(f.function)) for f in plan.declared],
        feature_transformation=WindowsOfTiles(udf=merge, udf_string=source))


def _window(a: Aggregation) -> str:
    return next(w.name for w in WINDOWS.values() if timedelta(milliseconds=w.length_ms) == a.time_window)


def _dtype(function: str) -> Any:
    if function in ("mean", "min", "max"):
        return Float64
    return {"last": String, "last_k": Array(String)}.get(function, Int64)


clock = RequestSource(name="clock", schema=[Field(name="now_ms", dtype=Int64)])

user_activity = stream_view(
    "user_activity", [shopper], "user", description="what a shopper did lately; money in cents",
    columns={
        "feeds": "shop.impressions",
        "clicks": "shop.clicks",
        "carts": "shop.carts",
        "orders": "shop.orders",
        "order_lines": "shop.orders/lines",
        "spend": "shop.orders/lines:price_cents*quantity",
        "click_price": "shop.clicks:price_cents",
        "click_items": "shop.clicks:item_id",
        "click_categories": "shop.clicks:category",
        "touched_items": "shop.clicks:item_id shop.orders/lines:item_id",
        "touched_categories": "shop.clicks:category shop.orders/lines:category",
    },
    features=[
        over("feeds", "count", "1h 24h 7d"),
        over("clicks", "count", "5m 1h 24h 7d"),
        over("carts", "count", "1h 24h 7d"),
        over("orders", "count", "24h 7d"),
        over("order_lines", "count", "24h 7d"),
        over("spend", "sum", "24h 7d"),
        over("click_price", "mean", "1h 24h 7d"),
        over("click_price", "min", "1h 24h 7d"),
        over("click_price", "max", "1h 24h 7d"),
        over("click_items", "distinct", "1h 24h 7d"),
        over("click_categories", "distinct", "24h 7d"),
        newest("touched_items", "user_last_item"),
        newest("touched_categories", "user_last_category"),
        newest("touched_items", "user_recent_items", k=20),
    ])

item_activity = stream_view(
    "item_activity", [item], "item", description="what shoppers did with an item lately; money in cents",
    columns={
        "impressions": "shop.impressions/item_ids",
        "clicks": "shop.clicks",
        "clickers": "shop.clicks:user_id",
        "carts": "shop.carts",
        "orders": "shop.orders/lines",
        "units": "shop.orders/lines:quantity",
        "revenue": "shop.orders/lines:price_cents*quantity",
        "buyers": "shop.orders/lines:user_id",
    },
    features=[
        over("impressions", "count", "5m 1h 24h 7d"),
        over("clicks", "count", "5m 1h 24h 7d"),
        over("carts", "count", "1h 24h 7d"),
        over("orders", "count", "1h 24h 7d"),
        over("units", "sum", "24h 7d"),
        over("revenue", "sum", "24h 7d"),
        over("buyers", "distinct", "7d"),
        over("clickers", "distinct", "24h"),
    ])

user_category_activity = stream_view(
    "user_category_activity", [shopper, category], "uc",
    description="what a shopper did in a category; money in cents",
    columns={
        "clicks": "shop.clicks",
        "click_price": "shop.clicks:price_cents",
        "carts": "shop.carts",
        "orders": "shop.orders/lines",
        "spend": "shop.orders/lines:price_cents*quantity",
    },
    features=[
        over("clicks", "count", "1h 24h 7d"),
        over("carts", "count", "24h 7d"),
        over("orders", "count", "7d"),
        over("click_price", "mean", "7d"),
        over("spend", "sum", "7d"),
    ])

item_attributes = FeatureView(
    name="item_attributes", entities=[item], ttl=timedelta(0), online=True, owner="features",
    description="what the catalogue said of an item at a time; price in cents",
    schema=[Field(name="item_category", dtype=String), Field(name="price_cents", dtype=Int64),
            Field(name="seller_id", dtype=String), Field(name="listed_at", dtype=Int64),
            Field(name="adult", dtype=Bool)],
    source=FileSource(name="item_history", path="history/item_attributes.parquet", timestamp_field="event_timestamp",
                      created_timestamp_column="created"))

_declared = [(user_activity, [shopper]), (item_activity, [item]), (user_category_activity, [shopper, category])]
PLAN = FeaturePlan(project=PROJECT, declared_views=tuple(plan_of(view, entities) for view, entities in _declared))
user_windows, item_windows, user_category_windows = (
    windows_view(view, plan) for (view, _), plan in zip(_declared, PLAN.declared_views, strict=True))

ranking = FeatureService(name="ranking", owner="features", description="what the rankers read",
                         features=[user_windows, item_windows, user_category_windows, item_attributes])
shopper_profile = FeatureService(name="shopper_profile", features=[user_windows], owner="features")
item_profile = FeatureService(name="item_profile", features=[item_windows, item_attributes], owner="features")

OBJECTS = [shopper, item, category, user_activity, item_activity, user_category_activity, item_attributes,
           user_windows, item_windows, user_category_windows, ranking, shopper_profile, item_profile]
