"""The live simulator: the same shoppers as in the history, one session at a time, whatever the neighbours do."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from adapters.errors import Misconfigured
from feature_repo import events
from models.marketplace.config import HOUR, MINUTE, Scenario, WorldConfig
from models.marketplace.history import draw_history
from models.marketplace.world import World, build_world, item_id
from services.recommender.api import Request
from services.simulator.control import Control, Rate
from services.simulator.live import live, searches, session
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

    async def feed(self, user: str, context: Mapping[str, str | bool]) -> tuple[str, list[str]] | None:
        assert {"of_age"} <= context.keys() <= {"device", "country", "of_age"}
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
    visits = [mixed.visit(NOW) for _ in range(20)]
    assert {(v.country, v.device) for v in visits} == {("SE", "phone")}
    assert all(v.user >= world.config.shoppers for v in visits), "a campaign brings shoppers nobody has seen before"


async def test_nulls_are_not_sent_at_all(world: World) -> None:
    shop = Shop([item_id(n) for n in range(20)])
    await sessions(shoppers_of(world, "nulls=1"), shop, 20)
    assert shop.sent
    assert all(getattr(e, "device", None) is None and getattr(e, "country", None) is None for e in shop.sent)
    assert b"device" not in events.encode(shop.sent[0]), "the column goes missing"


async def test_a_silent_upstream_sends_impressions_only(world: World) -> None:
    shop = Shop([item_id(n) for n in range(20)])
    shoppers = shoppers_of(world, "silence=1")
    await sessions(shoppers, shop, 40)
    assert {type(e) for e in shop.sent} == {events.ProductsShown}
    assert searches(shoppers, 50, NOW) == []


def test_prices_rise_everywhere_and_the_catalogue_is_told(world: World) -> None:
    shoppers, before = shoppers_of(world), shoppers_of(world)
    assert shoppers.arrivals(NOW) == before.arrivals(NOW)
    shoppers.change(Scenario(price_level=0.5))
    told = shoppers.arrivals(NOW + 1000)
    assert len(told) >= world.config.items, "every listed item has a new state"
    visit = shoppers.visit(NOW)
    old = before.click(visit, 5, NOW, None, None).price_cents
    assert shoppers.click(visit, 5, NOW, None, None).price_cents == pytest.approx(1.5 * old, abs=1)
    state = next(e for e in told if e.item_id == item_id(5))
    assert (state.price_cents, state.event_time) == (pytest.approx(1.5 * old, abs=1), NOW + 1000)
    assert shoppers.arrivals(NOW + 2000) == [], "once"
    shoppers.change(Scenario())
    assert len(shoppers.arrivals(NOW + 3000)) == len(told), "and told again when prices fall back"


def test_searches_are_drawn_together_and_are_valid(world: World) -> None:
    batch = searches(shoppers_of(world), 200, NOW)
    kinds = Counter(type(e).__name__ for e in batch)
    assert 400 < kinds["ProductClicked"] < 900
    assert kinds["ProductAddedToCart"] > kinds["OrderPlaced"] > 0
    for event in batch:
        assert events.decode(event.topic, events.encode(event)) == event
        assert getattr(event, "request_id", None) is None


def test_what_was_told_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / "scenario.json"
    control = Control(path, Scenario(taste_shift=0.1), Rate(1.0))
    control.set_scenario({"seasonal": 0.5}, reset=False, now_ms=NOW)
    control.set_rate({"searches_per_second": 40})
    again = Control(path, Scenario(), Rate(1.0))
    assert again.scenario == Scenario(taste_shift=0.1, seasonal=0.5)
    assert again.rate == Rate(1.0, 40.0)
    assert again.since_ms == NOW
    assert again.set_scenario({"nulls": 0.2}, reset=True, now_ms=NOW) == Scenario(nulls=0.2)
    assert again.set_rate({"feeds_per_second": 9, "searches_per_second": None}) == Rate(9.0, 0.0)
    path.write_text("{")
    with pytest.raises(Misconfigured, match="delete it"):
        Control(path, Scenario(), Rate(1.0))


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/scenario", {"tastes": 0.5}, "unknown"),
        ("/v1/scenario", {"taste_shift": 2}, "share between 0 and 1"),
        ("/v1/scenario", {"fraud_ring": 0.5}, "not available"),
        ("/v1/scenario", {"price_experiment": 0.5}, "not available"),
        ("/v1/rate", {"feeds_per_second": -1}, "between 0 and 1000"),
        ("/v1/rate", {"clicks": 1}, "clicks"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, path: str, body: dict[str, Any], says: str) -> None:
    app, _ = build(Settings(home=tmp_path, _env_file=None))  # type: ignore[call-arg]
    answer = TestClient(app).post(path, json=body)
    assert answer.status_code == 422
    assert says in answer.text
    assert not (tmp_path / "scenario.json").exists()


def test_scenario_and_rate_over_http(tmp_path: Path) -> None:
    app, simulator = build(Settings(home=tmp_path, _env_file=None))  # type: ignore[call-arg]
    client = TestClient(app)
    told = client.post("/v1/scenario", json={"taste_shift": 0.5, "reset": True}).json()
    assert told["scenario"]["taste_shift"] == 0.5
    assert told["meaning"].keys() == told["scenario"].keys()
    assert client.get("/v1/scenario").json() == told
    assert client.post("/v1/rate", json={"searches_per_second": 50}).json()["searches_per_second"] == 50
    assert client.get("/v1/rate").json()["feeds_per_second"] == simulator.control.rate.feeds_per_second == 1.0


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
    task = asyncio.create_task(live(shoppers_of(world), shop, lambda: Rate(200.0), stop))  # type: ignore[arg-type]
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.wait_for(task, 2)
    assert any(isinstance(e, events.ProductsShown) for e in shop.sent)


async def test_without_a_truth_it_waits_and_says_so(tmp_path: Path) -> None:
    simulator, stop = build(Settings(home=tmp_path, _env_file=None))[1], asyncio.Event()  # type: ignore[call-arg]
    task = asyncio.create_task(simulator.run(stop))
    await asyncio.sleep(0.05)
    assert "seed_history" in simulator.ready()["truth"]
    stop.set()
    await asyncio.wait_for(task, 5)
    own = Settings(home=tmp_path, data=tmp_path, _env_file=None)  # type: ignore[call-arg]
    assert build(own)[1].ready() == {}, "own data: nothing to simulate"


def test_wrong_scenarios_and_truths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"MINIMART_SIM_SCENARIO.*choose from"):
        build(Settings(home=tmp_path, sim_scenario="fraud_ring=0.5", _env_file=None))  # type: ignore[call-arg]
    np.savez(tmp_path / "world.npz", taste=np.zeros(3))
    with pytest.raises(Misconfigured, match="make reset"):
        load_truth(tmp_path / "world.npz")
