"""The whole loop on real parts: Redis for the lease, ClickHouse's engine for the evidence, a recommender's answers.

Kafka is left out: what would go through it is read by the same code that reads it from there. Training is a stand-in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from adapters.analytics import Analytics
from adapters.analytics_schema import migrate
from adapters.bundles import Bundle
from adapters.kafka import MemoryPublisher, Record
from adapters.model_server import InProcess
from adapters.rollout_state import RedisRolloutStore
from feature_repo.events import DECISIONS, SHADOW
from models.rerank import RULES
from models.rollout import events as e
from models.rollout.guardrails import GuardConfig
from models.rollout.state import Config, Ref
from services.analytics.rows import rows_of
from services.controller.board import Board
from services.controller.control import Controller
from services.controller.evidence import Evidence
from services.recommender.keeper import Keeper
from services.recommender.recommend import Recommender
from services.recommender.record import to_record
from services.recommender.shadow import Shadow
from services.recommender.sources import SOURCES
from services.recommender.terms import Ask
from tests.integration.conftest import redis_process
from tests.unit.recommender_bundles import publish
from tests.unit.recommender_world import BUDGETS, FakeShoppers, catalogue_of
from tests.unit.rollout_fakes import METRICS, FakeAliases, FakeChildren
from tests.unit.test_keeper import FakeCatalogue, FakeWindows

NOW = 1_795_000_000_000
CONFIG = Config(step_s=1, shadow_s=1, least_requests=2, least_shadow=10, timeout_s=600, cooldown_s=1)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def store(clickhouse_url: str) -> Analytics:
    found = Analytics(clickhouse_url, database="rollout_loop")
    migrate(found)
    return found


@dataclass
class Shop:
    """A recommender with its keeper and shadow, a controller, and shoppers who ask; time goes by as the test says."""

    folder: Path
    store: Analytics
    keeper: Keeper
    recommender: Recommender
    shadow: Shadow
    sink: MemoryPublisher
    children: FakeChildren = field(default_factory=FakeChildren)
    aliases: FakeAliases = field(default_factory=FakeAliases)
    now_ms: int = NOW
    asked: int = 0
    served: list[tuple[str, str]] = field(default_factory=list)

    async def shoppers_come(self, count: int) -> None:
        """Each asks once; answers and shadows go where Kafka would bring them."""
        for _ in range(count):
            self.asked += 1
            self.now_ms += 20
            decision = await self.recommender.recommend(Ask(f"q{self.asked}", f"u{self.asked % 61}", self.now_ms, 10))
            versions = {v for name, v in decision.model_versions.items() if name != "features"}
            assert len(versions) == 1, "an answer never mixes versions"
            self.served.append((decision.arm, versions.pop()))
            self.sink.publish(DECISIONS, decision.ask.request_id, orjson.dumps(
                to_record(decision), option=orjson.OPT_SERIALIZE_NUMPY))  # fmt: skip
            self.shadow.offer(decision)
            while self.shadow.waiting:
                await asyncio.sleep(0.001)
        for n, sent in enumerate(self.sink.records):
            if sent.topic in (DECISIONS, SHADOW):
                table, rows = rows_of(Record(sent.topic, 0, self.asked * 1000 + n, self.now_ms, sent.key, sent.value))
                self.store.insert(table, rows)
        self.sink.records.clear()


@asynccontextmanager
async def opened(folder: Path, store: Analytics) -> AsyncIterator[Shop]:
    publish(folder / "published", folder / "scratch", "1")
    models = InProcess()
    keeper = Keeper(folder / "published", FakeCatalogue(catalogue_of(60)), FakeWindows(), models, clock=lambda: NOW)
    keeper.tick()
    recommender = Recommender(
        keeper.choose, FakeShoppers(), models, SOURCES, RULES, keeper.in_stock, lambda: False,
        dict.fromkeys(BUDGETS, 2000.0), "f" * 12,
    )  # fmt: skip
    sink = MemoryPublisher()
    shadow = Shadow(recommender, lambda: keeper.roles, sink)
    shadow.start()
    yield Shop(folder, store, keeper, recommender, shadow, sink)
    await shadow.close()


def controller_of(shop: Shop, redis: str, owner: str) -> Controller:
    board = Board(shop.folder / "published", shop.folder / "rollout", MemoryPublisher(), shop.aliases)
    return Controller(
        owner, RedisRolloutStore(redis), board, Evidence(shop.store), shop.children, shop.keeper.describe,  # type: ignore[arg-type]
        CONFIG, GuardConfig(least_users=5), clock=lambda: shop.now_ms, drift_every_s=1e9,
        contracts_every_s=1e9, look_every_s=0.0, metrics=METRICS,
    )  # fmt: skip


async def rolled_out(shop: Shop, controller: Controller, challenger: dict[str, Bundle], ends: set[str]) -> list[str]:
    """Give the challenger and go on until the rollout ends; the states on the way."""
    await asyncio.to_thread(controller.tick)
    state = await asyncio.to_thread(controller.command, e.RetrainAsked(shop.now_ms, "a test", "test"))
    assert state.job is not None
    refs = {name: Ref(bundle.version, bundle.manifest_sha256) for name, bundle in challenger.items()}
    shop.children.job = e.JobEnded(shop.now_ms, state.job.id, "passed", "gated elsewhere", refs)
    seen: list[str] = []
    for _ in range(60):
        await asyncio.to_thread(controller.tick)
        await asyncio.to_thread(shop.keeper.tick)
        if not seen or seen[-1] != controller.state.name:
            seen.append(controller.state.name)
        if controller.state.name in ends:
            return seen
        await shop.shoppers_come(52)
        await asyncio.to_thread(controller.tick)
        await asyncio.sleep(0.1)
    raise AssertionError(f"it never ended: {seen}, {controller.state.reason}, {controller.describe()['evidence']}")


async def test_a_good_challenger_becomes_the_champion_of_the_answers(
    tmp_path: Path, store: Analytics
) -> None:
    with redis_process(tmp_path / "redis") as redis:
        async with opened(tmp_path, store) as shop:
            good = publish(tmp_path / "published", tmp_path / "scratch", "2", weight=1.1, current=False)
            controller = controller_of(shop, redis, "one")
            seen = await rolled_out(shop, controller, good, {"promoted"})
            assert [s for s in seen if s.startswith("canary")] == ["canary_5", "canary_25", "canary_50", "canary_100"]
            before = len(shop.served)
            await shop.shoppers_come(30)
            assert {version for _, version in shop.served[before:]} == {"2"}
            assert {("champion", "1"), ("control", "1"), ("canary", "2")} <= set(shop.served)
            assert ("champion", "2") not in shop.served[: before - 52]

            after = await asyncio.to_thread(controller.command, e.RollbackAsked(shop.now_ms, "sales fell", "test"))
            await asyncio.to_thread(shop.keeper.tick)
            assert after.name == "rolled_back"
            before = len(shop.served)
            await shop.shoppers_come(30)
            assert {version for _, version in shop.served[before:]} == {"1"}
            controller.close()


async def test_a_challenger_with_dead_scores_never_reaches_a_shopper(tmp_path: Path, store: Analytics) -> None:
    with redis_process(tmp_path / "redis") as redis:
        async with opened(tmp_path, store) as shop:
            dead = publish(tmp_path / "published", tmp_path / "scratch", "3", weight=0.0, current=False)
            controller = controller_of(shop, redis, "two")
            seen = await rolled_out(shop, controller, dead, {"rolled_back"})
            assert seen[-2:] == ["shadow", "rolled_back"]
            assert "constant" in controller.state.reason
            assert {version for _, version in shop.served} == {"1"}
            controller.close()
