"""Every feature, declared once with Feast's own objects. To add one, add one line to a view's `features`.

`columns` says where a view's inputs come from: `topic[/exploded list field][:field or field*field]`, or several of
these apart by spaces. A feature is an aggregation (`aggregations/family.py`) of a column over windows of `windows.py`;
it is named `{prefix}_{column}_{function}_{window}`. Feast keeps the declarations, owners and lineage; our own code
computes them, because Feast's tiled aggregation cannot undo an extreme. Each view is one Feast value of bytes per key
(packed tiles, see `tiles.py`), which an on-demand view merges into windows at the request's `now_ms`. Needs Feast:
programs that serve read the compiled plan instead (`plan.py`).
"""

from __future__ import annotations

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.stream_feature_view import StreamFeatureView
from feast.types import Bool, Int64, String
from feast.value_type import ValueType

from feature_repo.about import AttributeView, Service
from feature_repo.declare import about_of, newest, over, plan_of, request_view, stream_view, windows_view
from feature_repo.on_request import OnRequest
from feature_repo.plan import FeaturePlan, ViewPlan

PROJECT = "minimart"

shopper = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a shopper")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="a listed product")
category = Entity(name="category", join_keys=["category"], value_type=ValueType.STRING, description="a category")
seller = Entity(name="seller", join_keys=["seller_id"], value_type=ValueType.STRING, description="who lists products")
merchant = Entity(name="merchant", join_keys=["merchant_id"], value_type=ValueType.STRING, description="who is paid")
card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.STRING, description="a card, as a token")
device = Entity(name="device", join_keys=["device_id"], value_type=ValueType.STRING, description="what was paid with")


user_activity = stream_view(
    "user_activity", [shopper], "user", description="what a shopper did lately; money in cents",
    tags={"domain": "ranking"},
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
    tags={"domain": "ranking"},
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
    description="what a shopper did in a category; money in cents", tags={"domain": "ranking"},
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

seller_activity = stream_view(
    "seller_activity", [seller], "seller", description="what shoppers did with a seller's products; money in cents",
    tags={"domain": "marketplace"},
    columns={
        "clicks": "shop.clicks",
        "carts": "shop.carts",
        "orders": "shop.orders/lines",
        "revenue": "shop.orders/lines:price_cents*quantity",
        "buyers": "shop.orders/lines:user_id",
        "categories": "shop.orders/lines:category",
        "price": "shop.orders/lines:price_cents",
    },
    features=[
        over("clicks", "count", "1h 24h 7d"),
        over("carts", "count", "24h 7d"),
        over("orders", "count", "24h 7d 30d"),
        over("revenue", "sum", "24h 7d 30d"),
        over("price", "std", "7d"),
        over("orders", "ratio_clicks", "24h 7d"),
        over("revenue", "ratio_orders", "7d"),
        over("clicks", "decayed_6h", "7d"),
        over("buyers", "distinct", "24h 30d"),
        over("categories", "top_3", "30d"),
    ])

user_payments = stream_view(
    "user_payments", [shopper], "payer", description="what a shopper paid lately; money in cents",
    tags={"domain": "fraud"},
    columns={
        "payments": "shop.payments",
        "amount": "shop.payments:amount_cents",
        "merchants": "shop.payments:merchant_id",
        "cards": "shop.payments:card_id",
        "devices": "shop.payments:device_id",
    },
    features=[
        over("payments", "count", "5m 1h 24h 30d"),
        over("amount", "sum", "5m 1h 24h 30d"),
        over("amount", "mean", "24h 30d"),
        over("amount", "std", "24h 30d"),
        over("amount", "max", "1h 24h 30d"),
        over("amount", "decayed_6h", "7d"),
        over("merchants", "distinct", "1h 24h 30d"),
        over("cards", "distinct", "24h 30d"),
        over("devices", "distinct", "24h 30d"),
        over("merchants", "top_3", "30d"),
        newest("merchants", "payer_last_merchant"),
        newest("devices", "payer_last_device"),
    ])

merchant_payments = stream_view(
    "merchant_payments", [merchant], "merchant", description="what a merchant was paid lately; money in cents",
    tags={"domain": "fraud"},
    columns={
        "payments": "shop.payments",
        "amount": "shop.payments:amount_cents",
        "cards": "shop.payments:card_id",
        "payers": "shop.payments:user_id",
    },
    features=[
        over("payments", "count", "5m 1h 24h 30d"),
        over("amount", "sum", "5m 1h 24h 30d"),
        over("amount", "mean", "24h 30d"),
        over("amount", "std", "24h 30d"),
        over("payments", "decayed_1h", "24h"),
        over("cards", "distinct", "1h 24h 30d"),
        over("payers", "distinct", "24h"),
    ])

card_payments = stream_view(
    "card_payments", [card], "card", description="what was paid with a card lately; money in cents",
    tags={"domain": "fraud"},
    columns={
        "payments": "shop.payments",
        "amount": "shop.payments:amount_cents",
        "merchants": "shop.payments:merchant_id",
        "devices": "shop.payments:device_id",
        "payers": "shop.payments:user_id",
    },
    features=[
        over("payments", "count", "5m 1h 24h 30d"),
        over("amount", "sum", "5m 1h 24h 30d"),
        over("amount", "mean", "30d"),
        over("amount", "std", "30d"),
        over("amount", "min", "30d"),
        over("amount", "max", "24h 30d"),
        over("payments", "decayed_1h", "24h"),
        over("merchants", "distinct", "1h 24h 30d"),
        over("devices", "distinct", "24h 30d"),
        over("payers", "distinct", "30d"),
        over("merchants", "top_3", "30d"),
        newest("merchants", "card_recent_merchants", k=5),
    ])

device_payments = stream_view(
    "device_payments", [device], "device", description="what was paid from a device lately; money in cents",
    tags={"domain": "fraud"},
    columns={
        "payments": "shop.payments",
        "amount": "shop.payments:amount_cents",
        "cards": "shop.payments:card_id",
        "payers": "shop.payments:user_id",
    },
    features=[
        over("payments", "count", "5m 1h 24h 30d"),
        over("amount", "sum", "1h 24h 30d"),
        over("cards", "distinct", "1h 24h 30d"),
        over("payers", "distinct", "24h 30d"),
    ])

user_merchant_payments = stream_view(
    "user_merchant_payments", [shopper, merchant], "um",
    description="what a shopper paid to a merchant; money in cents", tags={"domain": "fraud"},
    columns={
        "payments": "shop.payments",
        "amount": "shop.payments:amount_cents",
        "cards": "shop.payments:card_id",
    },
    features=[
        over("payments", "count", "5m 1h 24h 30d"),
        over("amount", "sum", "5m 1h 24h 30d"),
        over("amount", "mean", "30d"),
        over("amount", "std", "30d"),
        over("amount", "max", "30d"),
        over("cards", "distinct", "24h"),
    ])

item_attributes = FeatureView(
    name="item_attributes", entities=[item], ttl=timedelta(0), online=True, owner="features",
    description="what the catalogue said of an item at a time; price in cents",
    tags={"domain": "ranking", "kind": "attributes", "freshness_sla_s": "86400", "default:adult": "true"},
    schema=[Field(name="item_category", dtype=String), Field(name="price_cents", dtype=Int64),
            Field(name="seller_id", dtype=String), Field(name="listed_at", dtype=Int64),
            Field(name="adult", dtype=Bool)],
    source=FileSource(name="item_history", path="history/item_attributes.parquet", timestamp_field="event_timestamp",
                      created_timestamp_column="created"))

_declared = [
    (user_activity, [shopper]), (item_activity, [item]), (user_category_activity, [shopper, category]),
    (seller_activity, [seller]), (user_payments, [shopper]), (merchant_payments, [merchant]), (card_payments, [card]),
    (device_payments, [device]), (user_merchant_payments, [shopper, merchant])]
_plans = tuple(plan_of(view, entities) for view, entities in _declared)
_windows = {view.name: windows_view(view, plan) for (view, _), plan in zip(_declared, _plans, strict=True)}




def _holding(declared: list[OnRequest]) -> tuple[list[StreamFeatureView], list[ViewPlan]]:
    """The views that hold a stored feature of any of these, and their plans."""
    stored = {name for feature in declared for name in feature.stored}
    held = [(view, plan) for (view, _), plan in zip(_declared, _plans, strict=True) if stored & set(plan.features)]
    return [view for view, _ in held], [plan for _, plan in held]


# Of the request's numbers and stored features: this payment against what is usual.
ON_REQUEST = {"fraud": [
    OnRequest(name="amount_to_payer_mean_30d", how="ratio", request="amount_cents", stored=("payer_amount_mean_30d",)),
    OnRequest(name="amount_to_card_max_30d", how="ratio", request="amount_cents", stored=("card_amount_max_30d",)),
    OnRequest(name="amount_zscore_merchant_30d", how="zscore", request="amount_cents",
              stored=("merchant_amount_mean_30d", "merchant_amount_std_30d")),
]}
_on_request = {name: request_view(name, *_holding(declared), declared) for name, declared in ON_REQUEST.items()}


def service(name: str, views: list[StreamFeatureView | FeatureView], description: str) -> FeatureService:
    """What one model or page reads: of stream views the windows, of plain views the fields."""
    made = [_on_request[name]] if name in _on_request else []
    return FeatureService(name=name, owner="features", description=description,
                          features=[*(_windows.get(v.name, v) for v in views), *made])


SERVICES = [
    service("ranking", [user_activity, item_activity, user_category_activity, item_attributes],
            "what the rankers read"),
    service("fraud", [user_payments, merchant_payments, card_payments, device_payments, user_merchant_payments],
            "velocity of a payment's shopper, merchant, card and device"),
    service("shopper_profile", [user_activity], "one shopper"),
    service("item_profile", [item_activity, item_attributes], "one product"),
    service("seller_profile", [seller_activity], "one seller"),
]
VIEWS = [*(view for view, _ in _declared), item_attributes]
OBJECTS = [shopper, item, category, seller, merchant, card, device, *VIEWS, *_windows.values(), *_on_request.values(),
           *SERVICES]
PLAN = FeaturePlan(
    project=PROJECT, declared_views=_plans,
    attribute_views=(AttributeView(
        name=item_attributes.name, entity="item", join_keys=("item_id",), about=about_of(item_attributes),
        fields={f.name: str(f.dtype).lower() for f in item_attributes.features}),),  # `schema` is a set: no order
    services=tuple(Service(
        name=s.name, description=s.description, owner=s.owner, on_request=tuple(ON_REQUEST.get(s.name, ())),
        views=tuple(p.name.removesuffix("_windows") for p in s.feature_view_projections if p.name not in
                    {v.name for v in _on_request.values()})) for s in SERVICES))
