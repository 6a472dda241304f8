"""The feature server on a real Redis: equal to Feast's SDK, and answering while Redis is killed, hung and empty."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest
from feast import FeatureStore
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.feature_client import FeatureClient
from adapters.feature_state import Batch, FeatureState
from adapters.online_rows import Attributes, MemoryRows, OnlineRows
from feature_repo import features
from feature_repo.plan import FeaturePlan
from pipelines import apply_features
from pipelines.stack import redis_server
from pipelines.stack.launch import free_ports, running
from services.feature_server import main as feature_server
from services.feature_server.answer import Answers
from services.feature_server.asks import Asks
from services.feature_server.last_known import LastKnown
from services.feature_server.main import build
from settings import Settings
from tests.unit.tile_worlds import DAY, packed_key

HOST = "127.0.0.1"
NOW = int(time.time() * 1000)
PLAN = features.PLAN
KEYS = 6
VIEWS = {"user_activity": "u", "item_activity": "i"}


def fill(redis_url: str) -> None:
    """Some keys of each view, item attributes among them, and the word that the store is whole."""
    state, rng = FeatureState(redis_url, PLAN), random.Random(9)
    for view, letter in VIEWS.items():
        # k0 is expired: its events are older than every window
        state.put({(view, (f"{letter}{n}",)): packed_key(PLAN.view(view), rng, NOW - (40 * DAY if n == 0 else 0), 25)
                   for n in range(KEYS)}, NOW)
    state.put_attributes("item_attributes", ("item_id",), (
        ((f"i{n}",), NOW - n, {"item_category": f"c{n}", "price_cents": 100 - 60 * n, "seller_id": "s",
                               "listed_at": NOW, "adult": n == 2}) for n in range(KEYS - 1)))
    for partition in range(4):
        state.restart_from(Batch(partition=partition, token=""))
    state.close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Settings:
    home = tmp_path_factory.mktemp("features")
    found = Settings(_env_file=None, home=home, redis_url=redis_url.replace("/0", "/5"))
    apply_features.apply(found)
    fill(found.redis)
    return found


@pytest.fixture(scope="module")
def feast(settings: Settings) -> FeatureStore:
    return FeatureStore(repo_path=str(settings.features))


async def ours(settings: Settings, service: str, entities: dict[str, list[str]]) -> dict[str, list[Any]]:
    plan, services = PLAN, apply_features.FeatureServices.load(settings.features / apply_features.FILE)
    rows = OnlineRows(settings.redis, plan, partitions=4, timeout_ms=20_000)
    answers = Answers(plan, rows, LastKnown(1 << 20), clock=lambda: NOW)
    found = await answers.answer(Asks(plan, services).ask(service, [], entities, NOW, NOW))
    await rows.close()
    assert not found.stale
    return {c.name: c.values.tolist() for v in found.views for c in v.columns}


ANY_KEY = st.sampled_from([*range(KEYS), "none"])


@given(keys=st.lists(ANY_KEY, min_size=1, max_size=8))
@examples(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize(("service", "key", "letter"), [("shopper_profile", "user_id", "u"),
                                                        ("item_profile", "item_id", "i")])
def test_it_answers_as_feast_does(settings: Settings, feast: FeatureStore, service: str, key: str, letter: str,
                                  keys: list[Any]) -> None:
    names = [f"{letter}{k}" for k in keys]
    found = asyncio.run(ours(settings, service, {key: names}))
    theirs = feast.get_online_features(feast.get_feature_service(service),
                                       [{key: n, "now_ms": NOW} for n in names]).to_dict()
    assert found.keys() == theirs.keys() - {key, "now_ms"}
    for name, column in found.items():
        for row, (value, told) in enumerate(zip(column, theirs[name], strict=True)):
            if value is None or (isinstance(value, float) and math.isnan(value)):
                assert told in (None, "") or math.isnan(told), (name, names[row], told)
            elif isinstance(value, list):
                assert value == list(told or []), (name, names[row])
            else:
                assert value == told, (name, names[row])
                assert type(value) is type(told), (name, value, told)


async def test_the_fake_and_the_real_rows_agree(settings: Settings) -> None:
    real, fake = OnlineRows(settings.redis, PLAN, partitions=4, timeout_ms=20_000), MemoryRows()
    packed = FeatureState(settings.redis, PLAN).states([("item_activity", ("i1",))])[0]
    assert packed is not None
    fake.stored = {"item_activity": {("i1",): packed},
                   "item_attributes": {("i2",): Attributes(NOW - 2, ("c2", -20, "s", NOW, True))}}
    asked = [("item_activity", [("i1",), ("none",), ("i1",)]), ("user_merchant_payments", [("u", "m")]),
             ("item_attributes", [("i2",), ("none",)]), ("user_activity", [])]
    assert await real.read(asked) == await fake.read(asked)
    other = FeaturePlan(project="minimart", declared_views=PLAN.declared_views[:1])
    elsewhere = OnlineRows(settings.redis, other, partitions=4, timeout_ms=20_000)
    assert not (await elsewhere.read([])).whole, "it holds another feature set"
    await elsewhere.close()
    await real.close()


class Redis:
    """A server to be killed, stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.url = f"redis://{HOST}:{self.port}/0"

    @contextmanager
    def started(self) -> Iterator[Popen[bytes]]:
        shutil.rmtree(self.folder)  # nothing of the one before: what it appended to its file would come back
        self.folder.mkdir()
        launch = redis_server.launch(self.folder, host=HOST, port=self.port)
        with running(launch, log=self.folder / "log", ready=lambda: redis_server.ready(HOST, self.port)) as process:
            yield process


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                 ) -> AsyncIterator[tuple[Settings, Redis, httpx.AsyncClient]]:
    monkeypatch.setattr(feature_server, "REDIS_TIMEOUT_MS", 500.0)  # a busy machine must not look like a hung Redis
    redis = Redis(tmp_path / "redis")
    redis.folder.mkdir()
    http, grpc = free_ports(2)
    settings = Settings(_env_file=None, home=tmp_path, redis_url=redis.url, feature_server_port=http,
                        feature_server_grpc_port=grpc)
    apply_features.compile_plan(settings.features)
    app = build(settings)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://features")
    async with app.router.lifespan_context(app), client:
        yield settings, redis, client


QUESTION = {"feature_service": "item_profile", "entities": {"item_id": ["i1", "i3", "new", "i1"]}}


async def ask(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/v1/features", json=QUESTION)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    for view in body["views"]:
        assert len(view["states"]) == 4
        assert body["stale"] == bool({"stale", "default"} & {s for v in body["views"] for s in v["states"]})
    return body


async def until(client: httpx.AsyncClient, states: list[str], degraded: list[str]) -> dict[str, Any]:
    """Ask, several at a time, until the rows are in these states; every answer on the way must be one."""
    over = time.monotonic() + 60
    while True:
        body = (await asyncio.gather(*(ask(client) for _ in range(4))))[-1]
        if (body["views"][0]["states"], body["degraded"]) == (states, degraded):
            return body
        assert time.monotonic() < over, (body["views"][0]["states"], body["degraded"])
        await asyncio.sleep(0.02)


EXACT = ["present", "present", "missing", "present"]
KNOWN = ["stale", "stale", "default", "stale"]


async def test_redis_killed_hung_and_empty_under_load(
    served: tuple[Settings, Redis, httpx.AsyncClient],
) -> None:
    settings, redis, client = served
    assert (await client.get("/readyz")).status_code == 503
    await until(client, ["default"] * 4, ["store_down"])
    rpc = FeatureClient(f"{HOST}:{settings.port('feature_server_grpc')}", timeout_s=20)
    with redis.started() as process:
        fill(redis.url)
        values = (await until(client, EXACT, []))["views"][0]["values"]
        assert (await client.get("/readyz")).status_code == 200
        os.killpg(process.pid, signal.SIGSTOP)
        hung = await until(client, KNOWN, ["store_down"])
        assert hung["views"][0]["reads_ms_ago"][0] > 0
        os.killpg(process.pid, signal.SIGCONT)
        await until(client, EXACT, [])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        killed = await until(client, KNOWN, ["store_down"])
        assert killed["views"][1]["values"]["adult"][2] is True, "the declared default"
        assert (await rpc.features("item_profile", {"item_id": ["i1"]})).stale
        assert (await client.get("/readyz")).json()["notes"]["redis"].startswith("away")
    with redis.started():
        await until(client, KNOWN, ["store_incomplete"])
        fill(redis.url)
        again = await until(client, EXACT, [])
        assert again["views"][0]["values"].keys() == values.keys()
        over_grpc = await rpc.features("item_profile", QUESTION["entities"], at_ms=again["at_ms"])  # type: ignore[arg-type]
        for name, column in again["views"][0]["values"].items():
            told = [None if isinstance(v, float) and math.isnan(v) else v for v in over_grpc.columns[name].tolist()]
            assert told == column, name
    await rpc.close()
