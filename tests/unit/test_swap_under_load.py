"""New models come into use while shoppers ask: every answer is whole, from one version, and none fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from adapters.decision_log import DecisionLog
from adapters.kafka import MemoryPublisher
from adapters.model_server import InProcess
from adapters.web import create_app
from models.rerank import RULES
from services.recommender.admission import Admission, AdmissionConfig
from services.recommender.answers import Answers
from services.recommender.api import add_routes
from services.recommender.keeper import Keeper
from services.recommender.recommend import Recommender
from services.recommender.sources import SOURCES
from services.recommender.terms import STAGES
from tests.unit.recommender_bundles import publish
from tests.unit.recommender_world import NOW, FakeShoppers, catalogue_of
from tests.unit.test_keeper import FakeCatalogue, FakeWindows

USERS = ("u1", "s1", "s2", "u1")
PATIENCE_S = 60.0


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


async def test_swaps_under_load_fail_nobody_and_mix_nothing(tmp_path: Path, logs: list[Any]) -> None:
    published, models = tmp_path / "published", InProcess()
    publish(published, tmp_path / "scratch", "1")
    catalogue = FakeCatalogue(catalogue_of(60, new=3))
    keeper = Keeper(published, catalogue, FakeWindows(), models, clock=lambda: NOW, look_s=0.01)
    keeper.tick()
    recommender = Recommender(
        keeper.choose, FakeShoppers(), models, SOURCES, RULES, keeper.in_stock, lambda: False,
        dict.fromkeys(STAGES, 30_000.0), "f" * 12,
    )  # fmt: skip
    app = create_app("recommender", title="test", ready=keeper.missing)
    answers = Answers(recommender, Admission(AdmissionConfig(most=64)), lambda: NOW)
    add_routes(app, answers, DecisionLog(MemoryPublisher(), tmp_path))
    over, seen = asyncio.Event(), list[dict[str, Any]]()

    async def shopper(client: httpx.AsyncClient, user: str) -> None:
        while not over.is_set():
            response = await client.post("/v1/recommendations", json={"user_id": user})
            assert response.status_code == 200, response.text
            seen.append(response.json())

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        keeper.start()
        load = [asyncio.create_task(shopper(client, user)) for user in USERS]
        for version in ("2", "3", "4"):
            items = 50 + int(version)  # the index grows, so that its rows are others
            await asyncio.to_thread(publish, published, tmp_path / "scratch", version, items=items)
            due = time.monotonic() + PATIENCE_S
            while not (seen and seen[-1]["model_versions"]["index"] == version):
                assert not any(task.done() for task in load)
                assert time.monotonic() < due, [version, *(one for one in logs if one["log_level"] != "info")]
                await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*load)
    keeper.close()
    versions = [set(answer["model_versions"].values()) - {"f" * 12} for answer in seen]
    assert all(len(one) == 1 for one in versions), "an answer never mixes versions"
    assert {next(iter(one)) for one in versions} == {"1", "2", "3", "4"}
    assert not any(answer["degraded"] for answer in seen)
    assert all(len({item["item_id"] for item in answer["items"]}) == 20 for answer in seen)
    assert any(answer["cached_ms"] == 0 for answer in seen if answer["cold_start"])
