"""The shop between fakes: pages, events sent, live refresh, explanations, and calm when neighbours are away."""

from __future__ import annotations

import asyncio
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import Unavailable
from feature_repo import events
from services.shop import basket, words
from services.shop.explain import why
from services.shop.glyphs import GLYPHS
from services.shop.live import Watch, grew
from services.shop.pictures import picture
from services.shop.shoppers import pick
from tests.unit.shop_fakes import CATEGORIES, FakeFeatures, World

STATIC = Path(__file__).parents[2] / "adapters" / "pages" / "static"
HX = {"HX-Request": "true"}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def shop(world: World) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(world.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


async def become(shop: httpx.AsyncClient, user_id: str = "u1") -> None:
    answer = await shop.post("/shopper", data={"user_id": user_id})
    assert answer.status_code == 303


def types(world: World) -> list[str]:
    return [e["type"] for e in world.events]


async def test_a_stranger_chooses_a_shopper(shop: httpx.AsyncClient, world: World) -> None:
    page = (await shop.get("/")).text
    assert "u00003" in page
    assert "likes Headphones" in page
    await shop.post("/shopper", data={})
    page = (await shop.get("/")).text
    assert "You are new here" in page
    assert page.count('class="card') == 20


async def test_a_feed_is_drawn_and_said_to_be_shown(shop: httpx.AsyncClient, world: World) -> None:
    await become(shop)
    page = await shop.get("/")
    await asyncio.sleep(0)
    request_id = re.search(r'data-request="([^"]+)"', page.text)
    assert request_id
    shown = world.events[0]
    assert (shown["type"], shown["request_id"], len(shown["item_ids"])) == ("products_shown", request_id[1], 20)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "29.4 ms" in page.text


async def test_only_who_says_so_is_of_age_and_another_shopper_says_it_anew(
    shop: httpx.AsyncClient, world: World
) -> None:
    await become(shop)
    assert "I am of age" in (await shop.get("/")).text
    assert world.asked[-1]["context"]["of_age"] is False
    assert (await shop.post("/age", data={"of_age": "true"})).headers["location"] == "/"
    assert "Hide them" in (await shop.get("/")).text
    assert world.asked[-1]["context"]["of_age"] is True
    await shop.post("/age", data={"of_age": "false"})
    await shop.get("/feed")
    assert world.asked[-1]["context"]["of_age"] is False
    await shop.post("/age", data={"of_age": "true"})
    await become(shop, "u2")
    await shop.get("/")
    assert world.asked[-1]["context"]["of_age"] is False


async def test_a_click_carries_its_feed_and_place_and_the_next_feed_differs(
    shop: httpx.AsyncClient, world: World
) -> None:
    await become(shop)
    first = re.findall(r'data-item="([^"]+)"', (await shop.get("/")).text)
    page = await shop.get("/products/i0002?r=r-1&p=3", headers=HX)
    assert "<html" not in page.text
    click = next(e for e in world.events if e["type"] == "product_clicked")
    assert (click["item_id"], click["request_id"], click["position"]) == ("i0002", "r-1", 3)
    feed = (await shop.get("/feed", headers=HX)).text
    assert re.findall(r'data-item="([^"]+)"', feed) != first
    assert "new since your last feed" in feed


async def test_without_htmx_a_click_counts_once_also_when_reloaded(shop: httpx.AsyncClient, world: World) -> None:
    await become(shop)
    answer = await shop.get("/products/i0002?r=r-1&p=3")
    assert answer.status_code == 303
    for _ in range(2):
        assert "<html" in (await shop.get(answer.headers["location"])).text
    assert types(world).count("product_clicked") == 1


async def test_cart_and_order(shop: httpx.AsyncClient, world: World) -> None:
    await become(shop)
    await shop.post("/cart", data={"item_id": "i0002", "request_id": "r-1"}, headers=HX)
    page = await shop.post("/cart", data={"item_id": "i0003"}, headers=HX)
    assert 'hx-swap-oob="true"' in page.text
    total = sum(world.catalogue.items[i].price_cents for i in ("i0002", "i0003"))
    assert words.money(total) in page.text
    await shop.post("/cart/remove", data={"item_id": "i0003"})
    thanks = await shop.post("/buy")
    assert "is placed and paid" in thanks.text
    *_, order, payment = world.events
    assert (order["type"], [line["item_id"] for line in order["lines"]]) == ("order_placed", ["i0002"])
    assert (payment["type"], payment["order_id"]) == ("payment_made", order["order_id"])
    assert payment["amount_cents"] == world.catalogue.items["i0002"].price_cents
    for sent in world.events:
        events.decode_any(httpx.Response(200, json=sent).content)
    assert "It is empty" in (await shop.get("/cart")).text


async def test_why_this_shows_the_way_through_the_funnel(shop: httpx.AsyncClient, world: World) -> None:
    await become(shop)
    page = (await shop.get("/")).text
    request_id = re.search(r'data-request="([^"]+)"', page)
    assert request_id
    text = (await shop.get(f"/why/{request_id[1]}/i0002", headers=HX)).text
    for part in ("Trending", "Pre-rank", "of 120", "Re-rank", "mmr", "closeness to your taste", "two-tower"):
        assert part in text
    assert "not found" in (await shop.get("/why/nothing/i0002", headers=HX)).text


async def test_it_stays_up_when_neighbours_are_away(shop: httpx.AsyncClient, world: World) -> None:
    await become(shop)
    world.broken = {"recommender", "collector"}
    world.features.away = True
    page = await shop.get("/")
    assert page.status_code == 200
    assert "taking a break" in page.text
    assert "Live features are away" in page.text
    product = await shop.get("/products/i0001?r=r-1&p=1", headers=HX)
    assert "collector is away" in product.text
    added = await shop.post("/cart", data={"item_id": "i0001"}, headers=HX)
    assert "is in your cart" in added.text
    kept = await shop.post("/buy", headers=HX)
    assert "could not be placed" in kept.text
    assert "Norvik" in (await shop.get("/cart")).text
    world.broken = set()
    assert "is placed" in (await shop.post("/buy")).text


async def test_degraded_is_said_in_plain_words(shop: httpx.AsyncClient, world: World) -> None:
    world.degraded = ["redis_down", "rank_skipped", "odd_thing"]
    await become(shop)
    page = (await shop.get("/")).text
    assert "does not know your latest clicks" in page
    assert "Ranking was skipped" in page
    assert "odd thing" in page


async def test_what_comes_from_outside_is_escaped(shop: httpx.AsyncClient, world: World) -> None:
    import msgspec

    world.catalogue.items["i0000"] = msgspec.structs.replace(
        world.catalogue.items["i0000"], title="<script>alert(1)</script>", category='"><b>'
    )
    await become(shop)
    page = (await shop.get("/")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert '"><b>' not in page


async def test_forms_of_other_sites_are_refused(shop: httpx.AsyncClient) -> None:
    answer = await shop.post("/buy", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


async def test_errors_are_pages_for_browsers_and_problems_for_programs(shop: httpx.AsyncClient) -> None:
    page = await shop.get("/products/unknown", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "<h1>Not found</h1>" in page.text
    assert (await shop.get("/products/unknown")).json()["errors"][0]["field"] == "item_id"
    bad = await shop.post("/shopper", data={"user_id": "a b"})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["field"] == "user_id"


async def test_a_stranger_has_no_stream(shop: httpx.AsyncClient) -> None:
    assert (await shop.get("/stream")).status_code == 204


async def test_the_watch_sees_a_click_at_once_and_gives_up_waiting_for_features() -> None:
    features = FakeFeatures()
    watch = Watch(features)
    changes = watch.changes("u1", lambda: False)

    async def react() -> None:
        await asyncio.sleep(0.05)
        features.clicks["u1"] = ["i1"]
        watch.acted("u1")

    task = asyncio.create_task(react())
    assert (await asyncio.wait_for(anext(changes), 0.6))[0] == "feed"
    await task
    features.away = True
    watch.acted("u1")
    kinds = [(await asyncio.wait_for(anext(changes), 2))[0] for _ in range(2)]
    assert kinds == ["features", "feed"]
    await changes.aclose()  # type: ignore[attr-defined]


async def test_the_watch_ends_and_tolerates_absent_features() -> None:
    class Away:
        async def windows(self, user_id: str) -> dict[str, object]:
            raise Unavailable("away")

    watch = Watch(Away())
    assert await watch.now("u1") is None
    assert [c async for c in watch.changes("u1", lambda: True)] == []


def test_only_growth_asks_for_a_new_feed() -> None:
    before = {"user_clicks_count_5m": 2, "user_recent_items": ["a"]}
    assert not grew(before, {**before, "user_clicks_count_5m": 1})
    assert grew(before, {**before, "user_clicks_count_5m": 3})
    assert grew(before, {**before, "user_recent_items": ["b", "a"]})
    assert not grew(before, None)
    assert grew(None, before)


ids = st.from_regex(events.ID_PATTERN.replace("$", r"\Z"))


@given(st.dictionaries(ids, st.integers(1, basket.MOST_OF_ONE), max_size=basket.MOST_LINES))
def test_a_cart_survives_its_cookie(lines: dict[str, int]) -> None:
    if len(basket.write(lines)) <= 4000:
        assert basket.read(basket.write(lines)) == lines


@given(st.text(max_size=200))
def test_any_cookie_is_a_cart(text: str) -> None:
    lines = basket.read(text)
    assert all(events.is_id(i) and 1 <= q <= basket.MOST_OF_ONE for i, q in lines.items())


@given(st.text(max_size=40), st.sampled_from([*GLYPHS, "something else"]))
def test_pictures_are_deterministic_svg(item_id: str, category: str) -> None:
    drawn = picture(item_id, category)
    assert drawn == picture(item_id, category)
    assert ET.fromstring(drawn).tag.endswith("svg")


def test_every_category_of_the_marketplace_has_a_glyph() -> None:
    from models.marketplace.names import CATEGORIES as REAL

    assert {c.name for c in REAL} <= set(GLYPHS)
    assert set(CATEGORIES) <= set(GLYPHS)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda c: st.lists(c, max_size=3), max_leaves=5))
def test_why_tolerates_decisions_without_stages(junk: object) -> None:
    decision = {"items": [{"item_id": "i1", "position": 1, "score": 0.5, "sources": ["trending"]}], "unknown": junk}
    found = why(decision, "i1")
    assert found.known
    assert found.sources == ("trending",)
    assert not why({}, "i1").known


def test_why_tells_what_lifted_and_lowered_where_the_recommender_explained_it() -> None:
    features = [{"words": "closeness to your taste", "value_words": "0.43", "contribution": 0.2},
                {"words": "its price", "value_words": "€12.00", "contribution": -0.1}]  # fmt: skip
    decision = {"candidates": {"item_ids": ["i1"]}, "why": {"items": [{"item_id": "i1", "features": features}]}}
    assert why(decision, "i1").features == (
        ("closeness to your taste", "0.43, lifted it"), ("its price", "€12.00, lowered it")
    )  # fmt: skip


def test_suggested_shoppers_differ_in_taste() -> None:
    rows = [(f"u{u}", f"i{u}-{k}", f"c{u % 5}", k) for u in range(30) for k in range(5 + u)]
    table = pa.table(dict(zip(("user_id", "item_id", "category", "event_time"), zip(*rows, strict=True), strict=True)))
    found = pick(table)
    assert len(found) == 5
    assert len({s.tastes[0] for s in found}) == 5
    assert found[0].recent[0].endswith(f"-{4 + int(found[0].user_id[1:])}")


def test_vendored_files_are_what_the_notice_says() -> None:
    rows = re.findall(r"^\| (\S+\.js) .* ([0-9a-f]{64}) \|$", (STATIC / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 2
    for name, digest in rows:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
