"""What a shopper can do: look at a feed, open a product, fill a cart, buy. Knows no HTTP; failures of neighbours are
returned as words to show, so that the shop stays up."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from jinja2 import Environment

from adapters.catalogue import Catalogue
from adapters.errors import NotFound, Unavailable
from adapters.http_guard import uuid7
from feature_repo import events
from feature_repo.events import ItemListed
from services.shop import pages
from services.shop.live import Watch
from services.shop.neighbours import Collector, Recommender
from services.shop.shoppers import Suggestion

K: Final = 20
REMEMBERED: Final = 5000  # shoppers whose last feed is kept, to mark what is new in the next
UNNOTICED: Final = "The event collector is away, so the feed cannot learn from this. You can go on shopping."
log = structlog.get_logger()


class Suggesting(Protocol):
    def all(self) -> Sequence[Suggestion]: ...


@dataclass(frozen=True)
class Visitor:
    """Who is looking. `session_id` lives as long as the browser window."""

    user_id: str
    session_id: str
    device: str
    of_age: bool = False
    """Whether the visitor has said so; unless so, feeds hold no products for adults."""


class Shop:
    def __init__(
        self,
        catalogue: Catalogue,
        recommender: Recommender,
        collector: Collector,
        watch: Watch,
        suggestions: Suggesting,
        templates: Environment,
    ) -> None:
        self.catalogue, self.recommender, self.collector = catalogue, recommender, collector
        self.watch, self.suggestions, self.templates = watch, suggestions, templates
        self._last: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()

    def item(self, item_id: str) -> ItemListed:
        """Raises NotFound."""
        listed = self.catalogue.get(item_id)
        if listed is None:
            raise NotFound(f"The catalogue has no product {item_id!r}; feeds link to those it has.", field="item_id")
        return listed

    async def feed(self, visitor: Visitor) -> pages.FeedView:
        """A feed for the visitor; that it was shown is told to the collector meanwhile. Raises Unavailable."""
        feed = await self.recommender.feed(visitor.user_id, K, visitor.device, visitor.of_age)
        view = pages.feed_view(feed, self.catalogue, self._last.get(visitor.user_id, ()))
        shown = [p.item_id for p in view.products]
        self._last[visitor.user_id] = tuple(shown)
        self._last.move_to_end(visitor.user_id)
        while len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        if shown:
            self._meanwhile(
                self.collector.send(
                    events.ProductsShown(
                        **_envelope(visitor),
                        request_id=feed.request_id,
                        item_ids=shown,
                    )
                )
            )
        return view

    async def open_product(
        self, visitor: Visitor, listed: ItemListed, request_id: str | None, position: int | None
    ) -> str | None:
        """Tell that a product was opened; what to say to the shopper where that failed."""
        return await self._tell(
            visitor,
            events.ProductClicked(
                **_envelope(visitor),
                item_id=listed.item_id,
                category=listed.category,
                price_cents=listed.price_cents,
                request_id=request_id,
                position=position,
            ),
        )

    async def add(self, visitor: Visitor, listed: ItemListed, request_id: str | None) -> str | None:
        return await self._tell(
            visitor,
            events.ProductAddedToCart(
                **_envelope(visitor),
                item_id=listed.item_id,
                category=listed.category,
                price_cents=listed.price_cents,
                request_id=request_id,
            ),
        )

    async def buy(self, visitor: Visitor, lines: Mapping[str, int]) -> tuple[str, int]:
        """Order and pay for what is in the cart: the order's id and its amount in cents. Raises Unavailable."""
        bought = [(self.item(item_id), quantity) for item_id, quantity in lines.items()]
        order_id, amount = f"o-{uuid7()}", sum(listed.price_cents * q for listed, q in bought)
        token = hashlib.sha256(visitor.user_id.encode()).hexdigest()[:16]
        order = events.OrderPlaced(
            **_envelope(visitor),
            order_id=order_id,
            lines=[
                events.OrderLine(item_id=i.item_id, category=i.category, price_cents=i.price_cents, quantity=q)
                for i, q in bought
            ],
        )
        payment = events.PaymentMade(
            **_envelope(visitor),
            payment_id=f"p-{uuid7()}",
            order_id=order_id,
            merchant_id=bought[0][0].seller_id,
            amount_cents=amount,
            card_id=f"card-{token}",
            device_id=visitor.session_id,
        )
        await self.collector.send(order, payment)
        self.watch.acted(visitor.user_id)
        return order_id, amount

    def cart(self, lines: Mapping[str, int]) -> tuple[list[tuple[pages.Product, int]], int]:
        """The lines of a cart as products with quantities, and their sum in cents; unknown items are left out."""
        found = [(listed, q) for item_id, q in lines.items() if (listed := self.catalogue.get(item_id)) is not None]
        return [(pages.product(i, i.item_id), q) for i, q in found], sum(i.price_cents * q for i, q in found)

    async def _tell(self, visitor: Visitor, event: events.Event) -> str | None:
        try:
            await self.collector.send(event)
        except Unavailable as error:
            log.warning("event_not_sent", type=type(event).__name__, reason=error.detail)
            return UNNOTICED
        self.watch.acted(visitor.user_id)
        return None

    def _meanwhile(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Unavailable as error:
                log.warning("event_not_sent", type="ProductsShown", reason=error.detail)

        task = asyncio.create_task(guarded())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Wait for what still runs in the background."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=3)


def _envelope(visitor: Visitor) -> dict[str, Any]:
    return {
        "event_id": uuid7(),
        "event_time": time.time_ns() // 1_000_000,
        "user_id": visitor.user_id,
        "session_id": visitor.session_id,
        "device": visitor.device,
    }
