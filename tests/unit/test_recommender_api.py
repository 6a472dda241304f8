"""The HTTP edge: shapes, refusals, shedding, and the decision behind an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from adapters.breaker import Breaker
from adapters.decision_log import DecisionLog
from adapters.errors import Unavailable
from adapters.kafka import MemoryPublisher
from adapters.online_store import MemoryReader
from adapters.web import create_app
from feature_repo.plan import FeaturePlan
from services.recommender.admission import Admission, AdmissionConfig
from services.recommender.answers import Answers
from services.recommender.api import add_routes
from services.recommender.shoppers import Shoppers
from tests.unit.recommender_world import BUDGETS, NOW, FakeShoppers, catalogue_of, lineup_of, recommender_of, shelf_of

SHELF = shelf_of(lineup_of(200), catalogue_of(200, new=5))
PLAN = FeaturePlan.load(Path(__file__).parent.parent / "plan.json")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


def app_of(lake: Path, *, shoppers: Any = None, most_in_flight: int = 16,
           features_ms: float = 40.0) -> tuple[FastAPI, DecisionLog]:
    log = DecisionLog(MemoryPublisher(), lake)
    app = create_app("recommender", title="test", ready=dict)
    admission = Admission(AdmissionConfig(most=most_in_flight))
    recommender = recommender_of(SHELF, shoppers=shoppers, budgets_ms=BUDGETS | {"features": features_ms})
    add_routes(app, Answers(recommender, admission, lambda: NOW, coalesce=False), log)
    return app, log


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_an_answer_has_the_public_shape_and_its_decision_can_be_read(tmp_path: Path) -> None:
    app, log = app_of(tmp_path)
    async with client_of(app) as client:
        response = await client.post("/v1/recommendations", json={"user_id": "u1", "context": {"device": "phone"}})
        answer = response.json()
        assert response.status_code == 200
        assert set(answer) == {"request_id", "items", "model_versions", "timings_ms", "degraded", "cold_start",
                               "arm", "rollout", "cached_ms"}
        assert (answer["arm"], answer["rollout"]) == ("champion", None)
        assert set(answer["timings_ms"]) == {"retrieve", "features", "prerank", "rank", "rerank", "total"}
        assert set(answer["items"][0]) == {"item_id", "score", "sources", "position", "new"}
        assert len(answer["items"]) == 20
        log.settle(5)
        decision = (await client.get(f"/v1/decisions/{answer['request_id']}")).json()
        assert decision["items"] == answer["items"]
        assert decision["device"] == "phone"
        missing = await client.get("/v1/decisions/unknown")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(("body", "field"), [
    ({}, "user_id"), ({"user_id": ""}, "user_id"), ({"user_id": "a b"}, "user_id"), ({"user_id": 7}, "user_id"),
    ({"user_id": "u", "k": 0}, "k"), ({"user_id": "u", "k": -1}, "k"), ({"user_id": "u", "k": 10**9}, "k"),
    ({"user_id": "u", "k": "5"}, "k"), ({"user_id": "u", "k": 2.5}, "k"), ({"user_id": "u", "k": True}, "k"),
    ({"user_id": "u", "surface": "a\x00b"}, "surface"), ({"user_id": "u", "extra": 1}, "extra"),
    ({"user_id": "u", "context": {"device": "toaster"}}, "device"),
])
async def test_bad_input_is_a_422_that_names_the_field(tmp_path: Path, body: dict[str, Any], field: str) -> None:
    app, _ = app_of(tmp_path)
    async with client_of(app) as client:
        response = await client.post("/v1/recommendations", json=body)
    assert response.status_code == 422
    assert field in response.text


@settings(max_examples=60, deadline=None)
@given(body=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["user_id", "k", "surface", "context", "device", "x"]), inner, max_size=4),
    max_leaves=8))
async def test_no_body_makes_a_server_error(tmp_path_factory: pytest.TempPathFactory, body: Any) -> None:
    app, _ = app_of(tmp_path_factory.getbasetemp())
    async with client_of(app) as client:
        response = await client.post("/v1/recommendations", json=body)
    assert response.status_code == 200 or 400 <= response.status_code < 500


async def test_beyond_the_limit_the_next_is_shed_at_once_with_retry_after(tmp_path: Path) -> None:
    app, _ = app_of(tmp_path, shoppers=FakeShoppers("hangs"), most_in_flight=3, features_ms=700.0)
    async with client_of(app) as client:
        ask = {"user_id": "u1"}
        held = [asyncio.create_task(client.post("/v1/recommendations", json=ask)) for _ in range(3)]
        await asyncio.sleep(0.01)
        shed = await client.post("/v1/recommendations", json=ask)
        assert not any(one.done() for one in held), "it was shed before those ahead of it were answered"
        assert shed.status_code == 429
        assert int(shed.headers["retry-after"]) >= 1
        assert [r.status_code for r in await asyncio.gather(*held)] == [200, 200, 200]
        assert (await client.post("/v1/recommendations", json=ask)).status_code == 200


async def test_an_unknown_shopper_has_counts_of_zero_not_unknown() -> None:
    shopper = await Shoppers(MemoryReader(), PLAN).who("nobody", ["Tea", "Books"], NOW)
    assert shopper.tastes is not None
    assert shopper.tastes["uc_clicks_count_24h"].tolist() == [0.0, 0.0]
    assert not shopper.seen_before
    assert shopper.features["user_clicks_count_1h"] == 0
    assert np.isnan(shopper.features["user_click_price_mean_24h"])
    tastes = await Shoppers(MemoryReader(), PLAN).tastes("nobody", ["Tea", "Books"], NOW)
    assert tastes["uc_clicks_count_24h"].tolist() == [0.0, 0.0]


async def test_a_store_that_is_down_is_asked_three_times_then_left_alone() -> None:
    asked, store = [], MemoryReader()
    store.down = True

    class Counting(MemoryReader):
        async def read_many(self, wanted: Any) -> list[list[bytes | None]]:
            asked.append(wanted)
            return await store.read_many(wanted)

    clock = [0.0]
    shoppers = Shoppers(Counting(), PLAN, Breaker(threshold=3, rest_s=0.5, clock=lambda: clock[0]))
    for _ in range(10):
        with pytest.raises(Unavailable):
            await shoppers.who("u", ["Tea"], NOW)
    assert len(asked) == 3
    store.down = False
    clock[0] = 0.6
    assert (await shoppers.who("u", ["Tea"], NOW)).user_id == "u"


async def test_many_categories_are_read_only_for_the_candidates() -> None:
    shopper = await Shoppers(MemoryReader(), PLAN).who("u", [f"c{i}" for i in range(200)], NOW)
    assert shopper.tastes is None
