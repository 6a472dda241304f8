"""The live simulator: the same shoppers as in the history, one session at a time, whatever the neighbours do."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from adapters.errors import Misconfigured
from feature_repo import events
from models.marketplace.config import HOUR, MINUTE, Scenario, WorldConfig
from models.marketplace.history import draw_history
from models.marketplace.world import World, build_world, item_id
from services.recommender.api import Request
from services.simulator.live import live, session
from services.simulator.main import build, load_truth
from services.simulator.shop_client import ShopClient
from services.simulator.shoppers import Shoppers
from settings import Settings

AS_OF = 1_795_000_020_000 // MINUTE * MINUTE
NOW = AS_OF + 5 * MINUTE


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(WorldConfig(shoppers=200, items=300, days=7, seed=7, as_of_ms=AS_OF))


def shoppers_of(world: World, scenario: str = "") -> Shoppers:
    recent = np.full((len(world.taste), 8), -1, np.int64)
    return Shoppers(world, recent, Scenario.parse(scenario), seed=1)


class Shop:
    """A recommender and a collector that keep what they are told."""

    def __init__(self, feed: list[str] | None) -> None:
        self.sent: list[events.Event] = []
        self.unreachable: dict[str, str] = {}
        self._feed, self._count = feed, itertools.count()

    async def feed(self, user: str, context: dict[str, str]) -> tuple[str, list[str]] | None:
        assert context.keys() == {"device", "country"}
        return None if self._feed is None else (f"request-{next(self._count)}", self._feed)

    async def send(self, batch: Sequence[events.Event]) -> bool:
        self.sent += batch
        return True


async def sessions(shoppers: Shoppers, shop: Any, count: int) -> None:
    for _ in range(count):
        await session(shoppers, shop, pace=0.0)


async def test_sessions_send_valid_events_that_belong_together(world: World) -> None:
    shop = Shop([item_id(n) for n in range(20)])
    await sessions(shoppers_of(world), shop, 150)
    kinds = Counter(type(e).__name__ for e in shop.sent)
    assert kinds["ProductsShown"] == pytest.approx(150 * 0.74, rel=0.25)
    assert kinds["ProductClicked"] > kinds["ProductAddedToCart"] > kinds["OrderPlaced"] >= kinds["PaymentMade"] > 0
    feeds = {e.request_id: e for e in shop.sent if isinstance(e, events.ProductsShown)}
    for event in shop.sent:
        assert events.decode(event.topic, events.encode(event)) == event
        if isinstance(event, events.ProductClicked) and event.request_id is not None:
            assert event.position is not None
            assert feeds[event.request_id].item_ids[event.position - 1] == event.item_id
            assert feeds[event.request_id].session_id == event.session_id
    orders = {e.order_id: e for e in shop.sent if isinstance(e, events.OrderPlaced)}
    for payment in (e for e in shop.sent if isinstance(e, events.PaymentMade)):
        lines = orders[payment.order_id].lines
        assert payment.amount_cents == sum(x.price_cents * x.quantity for x in lines)
    assert len({e.event_id for e in shop.sent}) == len(shop.sent)


async def test_without_a_feed_shoppers_still_search(world: World) -> None:
    shop = Shop(None)
    await sessions(shoppers_of(world), shop, 40)
    clicks = [e for e in shop.sent if isinstance(e, events.ProductClicked)]
    assert clicks
    assert all(c.request_id is None and c.position is None for c in clicks)


async def test_items_of_another_world_are_never_clicked(world: World) -> None:
    shop = Shop(["ghost", "i1", "i99999", "i00001x"])
    await sessions(shoppers_of(world), shop, 30)
    assert all(e.request_id is None for e in shop.sent if isinstance(e, events.ProductClicked))


def test_live_shoppers_click_like_those_of_the_history(world: World) -> None:
    history = draw_history(world)
    rate = (history.clicked["shown"] >= 0).sum() / len(history.shown["t"])
    shoppers, rng = shoppers_of(world), np.random.default_rng(0)
    rows = rng.integers(0, len(history.shown["t"]), 1500)
    clicks = 0
    for row in rows:
        visit = shoppers.visit(NOW)
        shown = [item_id(i) for i in history.shown["items"][row]]
        clicks += len(shoppers.clicks_in(visit, shown, NOW))
    assert clicks / len(rows) == pytest.approx(rate, rel=0.3)


def test_new_items_are_listed_when_their_time_comes(world: World) -> None:
    shoppers = shoppers_of(world)
    first = shoppers.arrivals(AS_OF + 24 * HOUR)
    assert first
    assert all(AS_OF < e.listed_at <= AS_OF + 24 * HOUR for e in first)
    assert shoppers.arrivals(AS_OF + 24 * HOUR) == []
    again = shoppers_of(world).arrivals(AS_OF + 24 * HOUR)
    assert again == first, "after a restart the same events come again, under the same ids"


def test_new_shoppers_come(world: World) -> None:
    shoppers = shoppers_of(world)
    late = int(world.joined_at[-1])
    assert max(shoppers.visit(NOW).user for _ in range(400)) < world.config.shoppers + 2
    assert max(shoppers.visit(late).user for _ in range(400)) > world.config.shoppers


def test_broken_units_and_traffic_mix(world: World) -> None:
    broken, sane = shoppers_of(world, "broken_units=1"), shoppers_of(world)
    visit = broken.visit(NOW)
    wrong, right = broken.cart(visit, 5, NOW, None), sane.cart(visit, 5, NOW, None)
    assert wrong.price_cents == right.price_cents // 100
    mixed = shoppers_of(world, "traffic_mix=1")
    assert {(v.country, v.device) for v in (mixed.visit(NOW) for _ in range(20))} == {("SE", "phone")}


async def test_a_shop_that_is_down_is_counted_and_found_again(world: World, tmp_path: Path) -> None:
    up = False

    def answer(request: httpx.Request) -> httpx.Response:
        if not up:
            raise httpx.ConnectError("refused")
        if request.url.path == "/v1/recommendations":
            assert Request.model_validate_json(request.content).k == 20, "the recommender takes what is asked"
            return httpx.Response(200, json={"request_id": "r", "items": [{"item_id": "i00001"}], "degraded": []})
        return httpx.Response(202, json={"accepted": 1, "refused": []})

    client = ShopClient(Settings(home=tmp_path, _env_file=None))  # type: ignore[call-arg]
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    shoppers = shoppers_of(world)
    assert await client.feed("u", {}) is None
    assert not await client.send([shoppers.cart(shoppers.visit(NOW), 1, NOW, None)])
    assert client.unreachable.keys() == {"recommender", "collector"}
    up = True
    visit = shoppers.visit(NOW)
    assert await client.feed("u", {"device": visit.device, "country": visit.country}) == ("r", ["i00001"])
    assert await client.send([shoppers.cart(shoppers.visit(NOW), 1, NOW, None)])
    assert client.unreachable == {}
    await client.close()


async def test_the_loop_ends_when_it_is_told(world: World) -> None:
    shop, stop = Shop([item_id(n) for n in range(20)]), asyncio.Event()
    task = asyncio.create_task(live(shoppers_of(world), shop, 200.0, stop))  # type: ignore[arg-type]
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.wait_for(task, 2)
    assert any(isinstance(e, events.ProductsShown) for e in shop.sent)


async def test_without_a_truth_it_waits_and_says_so(tmp_path: Path) -> None:
    simulator, stop = build(Settings(home=tmp_path, _env_file=None)), asyncio.Event()  # type: ignore[call-arg]
    task = asyncio.create_task(simulator.run(stop))
    await asyncio.sleep(0.05)
    assert "seed_history" in simulator.ready()["truth"]
    stop.set()
    await asyncio.wait_for(task, 5)
    own = Settings(home=tmp_path, data=tmp_path, _env_file=None)  # type: ignore[call-arg]
    assert build(own).ready() == {}, "own data: nothing to simulate"


def test_wrong_scenarios_and_truths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"MINIMART_SIM_SCENARIO.*choose from"):
        build(Settings(home=tmp_path, sim_scenario="nulls=0.5", _env_file=None))  # type: ignore[call-arg]
    np.savez(tmp_path / "world.npz", taste=np.zeros(3))
    with pytest.raises(Misconfigured, match="make reset"):
        load_truth(tmp_path / "world.npz")
