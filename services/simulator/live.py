"""The loop: sessions begin at the asked rate, each lives its own seconds; searches come in batches."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge

from feature_repo import events
from models.marketplace.history import FEED_SHARE
from models.marketplace.world import user_id
from services.simulator.control import Rate
from services.simulator.shop_client import ShopClient
from services.simulator.shoppers import Shoppers, Visit

MOST_SESSIONS: Final = 300  # at once; more are not begun
NEW_ITEMS_EVERY_S: Final = 5.0
LOOK_AT_RATE_S: Final = 1.0  # a changed rate holds after so long at most
SEARCH_EVERY_S: Final = 0.25
MOST_SEARCHES: Final = 500  # drawn at once; what is due beyond that is dropped
BATCH: Final = 500  # events in one request
AWAY_S: Final = 1.0  # a shopper who found the shop closed does nothing else for so long
CLICKS: Final = Counter("minimart_simulator_clicks_total", "Clicks of live shoppers", ["where"])
SESSIONS: Final = Gauge("minimart_simulator_sessions", "Sessions going on")
SILENT: Final = Counter("minimart_simulator_silent_total", "Events that a silent upstream did not send")
SKIPPED: Final = Counter("minimart_simulator_sessions_skipped_total", "Sessions not begun: too many were going on")


def now_ms() -> int:
    return int(time.time() * 1000)


async def live(shoppers: Shoppers, client: ShopClient, rate: Callable[[], Rate], stop: asyncio.Event) -> None:
    """Run until `stop` is set, at the rates that `rate` says at each moment; at 0 only new items are listed."""
    going: set[asyncio.Task[None]] = set()
    beside = [asyncio.create_task(c) for c in (_list_new_items(shoppers, client), _search(shoppers, client, rate))]
    try:
        while not stop.is_set():
            wanted = rate().feeds_per_second
            pause = random.expovariate(wanted / FEED_SHARE) if wanted else math.inf
            await _wait(stop, min(pause, LOOK_AT_RATE_S))
            if stop.is_set() or pause > LOOK_AT_RATE_S:  # without memory: waiting anew has the same distribution
                continue
            if len(going) >= MOST_SESSIONS:
                SKIPPED.inc()
                continue
            task = asyncio.create_task(session(shoppers, client))
            going.add(task)
            task.add_done_callback(going.discard)
            SESSIONS.set(len(going))
    finally:
        for task in (*beside, *going):
            task.cancel()
        await asyncio.gather(*beside, *going, return_exceptions=True)


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
        if await _tell(shoppers, client, [order]) and shoppers.pays():
            await asyncio.sleep(shoppers.pause(3.0) * pace)
            await _tell(shoppers, client, [shoppers.payment(visit, order, now_ms())])


async def _look_at_feed(
    shoppers: Shoppers, client: ShopClient, visit: Visit, carted: list[events.ProductAddedToCart], pace: float
) -> None:
    feed = await client.feed(user_id(visit.user), visit.context())
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
    await _tell(shoppers, client, batch)


async def _tell(shoppers: Shoppers, client: ShopClient, batch: list[events.Event]) -> bool:
    """Send what a shopper did, unless the upstream that would is silent."""
    if not shoppers.is_heard():
        SILENT.inc(len(batch))
        return False
    return await client.send(batch)


async def _search(shoppers: Shoppers, client: ShopClient, rate: Callable[[], Rate]) -> None:
    """Searches without a feed, drawn together and sent in batches: a stream of clicks that costs little."""
    due, last = 0.0, time.monotonic()
    while True:
        await asyncio.sleep(SEARCH_EVERY_S)
        now = time.monotonic()
        due, last = min(due + rate().searches_per_second * (now - last), MOST_SEARCHES), now
        count, due = int(due), due % 1
        if count:
            batch = searches(shoppers, count, now_ms())
            for start in range(0, len(batch), BATCH):
                await client.send(batch[start : start + BATCH])


def searches(shoppers: Shoppers, count: int, now: int) -> list[events.Event]:
    """Clicks, carts and orders of so many sessions that search at `now` (ms), in order per shopper."""
    visits = [shoppers.visit(now) for _ in range(count)]
    batch: list[events.Event] = []
    for visit, rows in zip(visits, shoppers.clicks_in_searches(visits, now), strict=True):
        if not shoppers.is_heard():
            SILENT.inc(len(rows))
            continue
        CLICKS.labels("search").inc(len(rows))
        batch += [shoppers.click(visit, row, now + n, None, None) for n, row in enumerate(rows)]
        carted = [shoppers.cart(visit, row, now + n, None) for n, row in enumerate(rows)
                  if shoppers.puts_in_cart(visit, row, now)]  # fmt: skip
        batch += carted
        if carted and shoppers.orders():
            batch.append(shoppers.order(visit, carted, now + len(rows)))
    return batch


async def _list_new_items(shoppers: Shoppers, client: ShopClient) -> None:
    waiting: list[events.ItemListed] = []
    while True:
        waiting += shoppers.arrivals(now_ms())
        while waiting and await client.send(waiting[:BATCH]):
            del waiting[:BATCH]
        await asyncio.sleep(NEW_ITEMS_EVERY_S)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
