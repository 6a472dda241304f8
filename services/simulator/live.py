"""The loop: sessions begin at the asked rate, each lives its own seconds; new items are listed in their time."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

from prometheus_client import Counter, Gauge

from feature_repo import events
from models.marketplace.history import FEED_SHARE
from models.marketplace.world import user_id
from services.simulator.shop_client import ShopClient
from services.simulator.shoppers import Shoppers, Visit

MOST_SESSIONS: Final = 300  # at once; more are not begun
NEW_ITEMS_EVERY_S: Final = 5.0
AWAY_S: Final = 1.0  # a shopper who found the shop closed does nothing else for so long
CLICKS: Final = Counter("minimart_simulator_clicks_total", "Clicks of live shoppers", ["where"])
SESSIONS: Final = Gauge("minimart_simulator_sessions", "Sessions going on")
SKIPPED: Final = Counter("minimart_simulator_sessions_skipped_total", "Sessions not begun: too many were going on")


def now_ms() -> int:
    return int(time.time() * 1000)


async def live(shoppers: Shoppers, client: ShopClient, feeds_per_second: float, stop: asyncio.Event) -> None:
    """Run until `stop` is set. `feeds_per_second` is the mean rate of feed requests; 0 only lists new items."""
    going: set[asyncio.Task[None]] = set()
    listing = asyncio.create_task(_list_new_items(shoppers, client))
    try:
        while not stop.is_set():
            await _wait(stop, random.expovariate(feeds_per_second / FEED_SHARE) if feeds_per_second else 1.0)
            if stop.is_set() or not feeds_per_second:
                continue
            if len(going) >= MOST_SESSIONS:
                SKIPPED.inc()
                continue
            task = asyncio.create_task(session(shoppers, client))
            going.add(task)
            task.add_done_callback(going.discard)
            SESSIONS.set(len(going))
    finally:
        for task in (listing, *going):
            task.cancel()
        await asyncio.gather(listing, *going, return_exceptions=True)


async def session(shoppers: Shoppers, client: ShopClient, *, pace: float = 1.0) -> None:
    """One shopper's session. `pace` stretches the pauses (0: none)."""
    visit = shoppers.visit(now_ms())
    carted: list[events.ProductAddedToCart] = []
    if shoppers.opens_feed():
        await _look_at_feed(shoppers, client, visit, carted, pace)
    if shoppers.searches():
        await asyncio.sleep(shoppers.pause(2.0) * pace)
        for row in shoppers.clicks_in_search(visit, now_ms()):
            await _click(shoppers, client, visit, carted, row, pace)
    if carted and shoppers.orders():
        await asyncio.sleep(shoppers.pause(4.0) * pace)
        order = shoppers.order(visit, carted, now_ms())
        if await client.send([order]) and shoppers.pays():
            await asyncio.sleep(shoppers.pause(3.0) * pace)
            await client.send([shoppers.payment(visit, order, now_ms())])


async def _look_at_feed(
    shoppers: Shoppers, client: ShopClient, visit: Visit, carted: list[events.ProductAddedToCart], pace: float
) -> None:
    feed = await client.feed(user_id(visit.user), {"device": visit.device, "country": visit.country})
    if feed is None or not feed[1]:
        await asyncio.sleep(AWAY_S * pace)
        return
    request_id, shown = feed
    await client.send([shoppers.shown(visit, request_id, shown, now_ms())])
    for row, position in shoppers.clicks_in(visit, shown, now_ms()):
        await _click(shoppers, client, visit, carted, row, pace, request_id, position)


async def _click(
    shoppers: Shoppers, client: ShopClient, visit: Visit, carted: list[events.ProductAddedToCart], row: int,
    pace: float, request_id: str | None = None, position: int | None = None,
) -> None:  # fmt: skip
    await asyncio.sleep(shoppers.pause(3.0) * pace)
    now = now_ms()
    CLICKS.labels("search" if request_id is None else "feed").inc()
    batch = [shoppers.click(visit, row, now, request_id, position)]
    if shoppers.puts_in_cart(visit, row, now):
        carted.append(shoppers.cart(visit, row, now + 1, request_id))
        batch.append(carted[-1])
    await client.send(batch)


async def _list_new_items(shoppers: Shoppers, client: ShopClient) -> None:
    waiting: list[events.ItemListed] = []
    while True:
        waiting += shoppers.arrivals(now_ms())
        if waiting and await client.send(waiting[:500]):
            del waiting[:500]
        await asyncio.sleep(NEW_ITEMS_EVERY_S)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
