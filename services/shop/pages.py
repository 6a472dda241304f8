"""What the templates draw: products, feeds, carts. Turns neighbours' answers into plain values; no HTTP here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment

from adapters import pages as shared
from adapters.catalogue import Catalogue
from feature_repo.events import ItemListed
from services.shop import words
from services.shop.neighbours import Feed

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Product:
    item_id: str
    title: str
    category: str
    price_cents: int
    stock: int = 1
    seller_id: str = ""
    position: int | None = None
    sources: tuple[str, ...] = ()
    new: bool = False
    fresh: bool = False

    @property
    def price(self) -> str:
        return words.money(self.price_cents)


@dataclass(frozen=True)
class FeedView:
    """A feed as drawn. `bars`: stage, ms, left and width in percent of the whole."""

    request_id: str
    products: tuple[Product, ...]
    total_ms: float
    bars: tuple[tuple[str, float, float, float], ...]
    degraded: tuple[str, ...]
    cold: str | None
    versions: Mapping[str, str]
    changed: int


def product(listed: ItemListed | None, item_id: str, **more: Any) -> Product:
    """A product as shown; an item that the catalogue does not know is shown by its id."""
    if listed is None:
        return Product(item_id, item_id, "Unknown", 0, stock=0, **more)
    return Product(item_id, listed.title, listed.category, listed.price_cents, listed.stock, listed.seller_id, **more)


def feed_view(feed: Feed, catalogue: Catalogue, before: Collection[str]) -> FeedView:
    """The feed with names and prices; products that were not in the shopper's feed before are marked fresh."""
    products = tuple(
        product(
            catalogue.get(item["item_id"]),
            item["item_id"],
            position=int(item.get("position", place)),
            sources=tuple(item.get("sources", ())),
            new=bool(item.get("new")),
            fresh=bool(before) and item["item_id"] not in before,
        )
        for place, item in enumerate(feed.items, 1)
    )
    spent = [(stage, float(feed.timings_ms.get(stage) or 0)) for stage in words.STAGES]
    whole = sum(ms for _, ms in spent) or 1.0
    bars, left = [], 0.0
    for stage, ms in spent:
        bars.append((stage, ms, left, ms / whole * 100))
        left += ms / whole * 100
    return FeedView(
        request_id=feed.request_id,
        products=products,
        total_ms=float(feed.timings_ms.get("total") or whole),
        bars=tuple(bars),
        degraded=tuple(words.degraded(feed.degraded)),
        cold=words.cold_start(feed.cold_start),
        versions=feed.model_versions,
        changed=sum(p.fresh for p in products),
    )


def environment() -> Environment:
    """The shop's templates."""
    found = shared.environment(HERE / "templates", word=words)
    found.filters.update(money=words.money, number=words.number)
    return found
