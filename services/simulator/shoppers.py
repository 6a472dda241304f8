"""What the live shoppers do: the same world and rules as the history, one session at a time.

Does not know HTTP, Kafka or the clock: every method is told `now` (Unix milliseconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from adapters.web import uuid7
from feature_repo import events
from models.marketplace import behaviour, history, names, scenarios
from models.marketplace.config import Scenario
from models.marketplace.world import COUNTRIES, DEVICES, Ints, World, item_id, seller_id, user_id

CURRENCY: Final = "EUR"
RARE_COUNTRY: Final = COUNTRIES.index("SE")
PHONE: Final = DEVICES.index("phone")
CROWD_SECONDS: Final = 30  # for so long the crowd of who may come is kept before it is worked out again


@dataclass(frozen=True, slots=True)
class Visit:
    """One shopper's session. `user` is a row of the world; country and device are None where they are not sent."""

    user: int
    session_id: str
    country: str | None
    device: str | None

    def context(self) -> dict[str, str | bool]:
        """What a feed request says about who asks, and from where. All simulated shoppers are of age."""
        said = {"device": self.device, "country": self.country, "of_age": True}
        return {name: value for name, value in said.items() if value is not None}

    def envelope(self, now: int) -> dict[str, Any]:
        return {
            "event_id": uuid7(), "event_time": now, "user_id": user_id(self.user), "session_id": self.session_id,
            "country": self.country, "device": self.device,
        }  # fmt: skip


class Shoppers:
    """The live marketplace: who comes, what they do with what they see, what arrives."""

    def __init__(self, world: World, recent: Ints, scenario: Scenario, seed: int) -> None:
        self._planted = world
        self.world = scenarios.under(world, scenario)
        self._recent = recent.copy()
        self._scenario = scenario
        self._rng = np.random.default_rng([world.config.seed, 5, seed])
        self._announced = world.config.as_of_ms
        self._crowd: tuple[int, Any] = (0, None)
        self._newcomers = np.arange(world.config.shoppers, len(world.taste))
        self._prices_announced = 0.0  # the price level that the catalogue knows

    def change(self, scenario: Scenario) -> None:
        """From now on this scenario holds."""
        self._scenario, self.world = scenario, scenarios.under(self._planted, scenario)

    def arrivals(self, now: int) -> list[events.ItemListed]:
        """Items listed since the last call (at first: since the end of history), always with the same event ids.

        After a change of the price level also every item that is listed already, at its new price.
        """
        world = self.world
        repriced: list[events.ItemListed] = []
        if self._prices_announced != self._scenario.price_level:
            self._prices_announced = self._scenario.price_level
            repriced = [self._repriced(int(row), now) for row in np.flatnonzero(world.listed_at <= self._announced)]
        rows = np.flatnonzero((world.listed_at > self._announced) & (world.listed_at <= now))
        self._announced = max(now, self._announced)
        return repriced + [self._listing(int(row)) for row in rows]

    def _repriced(self, row: int, now: int) -> events.ItemListed:
        price = int(behaviour.price_at(self.world, np.array([row]), np.array([now]))[0])
        return msgspec.structs.replace(self._listing(row), event_id=uuid7(), event_time=now, price_cents=price)

    def _listing(self, row: int) -> events.ItemListed:
        world, category = self.world, names.CATEGORIES[int(self.world.category[row])].name
        listed = int(world.listed_at[row])
        return events.ItemListed(
            event_id=f"listed-{world.config.seed}-{world.config.as_of_ms // 60_000:x}-{row}", event_time=listed,
            item_id=item_id(row), title=str(world.title[row]), category=category, listed_at=listed,
            price_cents=int(behaviour.price_at(world, np.array([row]), np.array([listed]))[0]),
            seller_id=seller_id(int(world.seller[row])), stock=int(world.stock[row]), adult=category in names.ADULT,
            promoted=bool(world.promoted[row]),
        )  # fmt: skip

    def visit(self, now: int) -> Visit:
        """The next session: shoppers who are here come by their activity and the hour where they live."""
        made, crowd = self._crowd
        if crowd is None or now - made > CROWD_SECONDS * 1000:
            world = self.world
            weight = world.activity * behaviour.rhythm(world.country, np.array(now)) * (world.joined_at <= now)
            self._crowd = now, (crowd := np.cumsum(weight, dtype=np.float64))
        user = int(min(np.searchsorted(crowd, self._rng.random() * crowd[-1], side="right"), len(crowd) - 1))
        country, device = int(self.world.country[user]), int(self.world.device[user])
        if self._rng.random() > 0.8:
            device = int(self._rng.integers(len(DEVICES)))
        if self._rng.random() < self._scenario.traffic_mix:
            user, country, device = int(self._rng.choice(self._newcomers)), RARE_COUNTRY, PHONE
        if self._rng.random() < self._scenario.nulls:
            return Visit(user, f"s-{uuid7()}", None, None)
        return Visit(user, f"s-{uuid7()}", COUNTRIES[country], DEVICES[device])

    def is_heard(self) -> bool:
        """Whether what a shopper does now reaches the collector at all."""
        return bool(self._rng.random() >= self._scenario.silence)

    def opens_feed(self) -> bool:
        return bool(self._rng.random() < history.FEED_SHARE)

    def searches(self) -> bool:
        return bool(self._rng.random() < history.ORGANIC_SHARE)

    def clicks_in(self, visit: Visit, shown: list[str], now: int) -> list[tuple[int, int]]:
        """(item row, 1-based position) of the clicks in a feed. Items this world does not know are never clicked."""
        rows = np.array([self._row(i) for i in shown], np.int64)
        known = np.flatnonzero(rows >= 0)
        user, t = np.array([visit.user]), np.array([now], np.int64)
        utility = behaviour.affinity(self.world, user, rows[known][None, :], t)[0]
        clicked = self._rng.random(len(known)) < behaviour.click_probability(utility, known + 1)
        return [(int(rows[n]), int(n) + 1) for n in known[clicked]]

    def clicks_in_search(self, visit: Visit, now: int) -> list[int]:
        """Item rows clicked in one search of the whole catalogue, in order."""
        return self.clicks_in_searches([visit], now)[0]

    def clicks_in_searches(self, visits: Sequence[Visit], now: int) -> list[list[int]]:
        """Item rows clicked in one search of each visit, drawn together."""
        user, t = np.array([v.user for v in visits]), np.full(len(visits), now, np.int64)
        listed = np.flatnonzero((self.world.listed_at <= now) & (self.world.stock > 0))
        category = history.intents(self.world, user, t, self._rng)
        items, count = history.browse(self.world, user, t, category, listed, self._recent, self._rng)
        return [[int(i) for i in row[:n] if i >= 0] for row, n in zip(items, count, strict=True)]

    def puts_in_cart(self, visit: Visit, row: int, now: int) -> bool:
        fit = behaviour.fit(self.world, np.array([visit.user]), np.array([[row]]), np.array([now], np.int64))
        return bool(self._rng.random() < behaviour.cart_probability(fit)[0, 0])

    def orders(self) -> bool:
        return bool(self._rng.random() < history.ORDER_SHARE)

    def pays(self) -> bool:
        return bool(self._rng.random() < history.PAID_SHARE)

    def pause(self, seconds: float) -> float:
        """A human pause of about so many seconds."""
        return float(seconds * np.exp(self._rng.normal(0, 0.5)))

    def shown(self, visit: Visit, request_id: str, item_ids: list[str], now: int) -> events.ProductsShown:
        return events.ProductsShown(**visit.envelope(now), request_id=request_id, item_ids=item_ids)

    def click(self, visit: Visit, row: int, now: int, request_id: str | None, position: int | None) -> events.Event:
        history.remember(self._recent, np.array([visit.user]), np.array([row]))
        product = self._product(row, now)
        return events.ProductClicked(**visit.envelope(now), **product, request_id=request_id, position=position)

    def cart(self, visit: Visit, row: int, now: int, request_id: str | None) -> events.ProductAddedToCart:
        return events.ProductAddedToCart(**visit.envelope(now), **self._product(row, now), request_id=request_id)

    def order(self, visit: Visit, carted: list[events.ProductAddedToCart], now: int) -> events.OrderPlaced:
        lines = [
            events.OrderLine(item_id=c.item_id, category=c.category, price_cents=c.price_cents, quantity=c.quantity)
            for c in carted
        ]
        return events.OrderPlaced(**visit.envelope(now), order_id=f"o-{uuid7()}", lines=lines)

    def payment(self, visit: Visit, order: events.OrderPlaced, now: int) -> events.PaymentMade:
        return events.PaymentMade(
            **visit.envelope(now), payment_id=f"p-{uuid7()}", order_id=order.order_id,
            merchant_id=seller_id(int(self.world.seller[self._row(order.lines[0].item_id)])),
            amount_cents=sum(line.price_cents * line.quantity for line in order.lines), currency=CURRENCY,
            card_id=f"card-{visit.user:05d}", device_id=f"device-{visit.user:05d}",
        )  # fmt: skip

    def _product(self, row: int, now: int) -> dict[str, Any]:
        price = int(behaviour.price_at(self.world, np.array([row]), np.array([now]))[0])
        if self._rng.random() < self._scenario.broken_units:
            price //= 100
        category = names.CATEGORIES[int(self.world.category[row])].name
        return {"item_id": item_id(row), "category": category, "price_cents": price}

    def _row(self, name: str) -> int:
        """The world's row of an item id, -1 if the item is none of this world."""
        row = int(name[1:]) if name[:1] == "i" and name[1:].isdecimal() else -1
        return row if 0 <= row < len(self.world.category) and item_id(row) == name else -1
