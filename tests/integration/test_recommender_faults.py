"""The recommender on a real Redis and a real Triton, which are killed, hung and brought back while it answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pyarrow as pa
import pytest

from adapters import event_lake
from feature_repo.events import ItemListed
from pipelines.stack import redis_server, triton_server
from pipelines.stack.launch import CannotRun, Launch, free_ports, running
from services.recommender.main import build
from settings import Settings
from tests.unit.recommender_bundles import publish
from tests.unit.recommender_world import listed

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Part:
    """A server that a test may kill, stop and start again."""

    launch: Launch
    ready: Any
    log: Path
    process: Popen[bytes]

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    @contextmanager
    def started(self) -> Iterator[None]:
        with running(self.launch, log=self.log, ready=self.ready):
            yield


@dataclass
class World:
    app: Any
    client: httpx.AsyncClient
    redis: Part
    triton: Part

    async def ask(self, user: str = "u3") -> tuple[dict[str, Any], float]:
        begun = time.perf_counter()
        response = await self.client.post("/v1/recommendations", json={"user_id": user, "k": 20})
        took = time.perf_counter() - begun
        assert response.status_code == 200, response.text
        answer = response.json()
        ids = [item["item_id"] for item in answer["items"]]
        assert len(set(ids)) == 20
        assert "i0" not in ids, "i0 is sold out"
        assert set(answer["model_versions"].values()) - {answer["model_versions"]["features"]} == {"1"}
        return answer, took

    async def until(self, reason: str, *, there: bool, within_s: float) -> None:
        """Ask until `reason` is, or is no longer, among the reasons."""
        over = time.perf_counter() + within_s
        while True:
            answer, _ = await self.ask()
            if (reason in answer["degraded"]) == there:
                return
            assert time.perf_counter() < over, f"{reason} {'missing' if there else 'still there'}: {answer['degraded']}"
            await asyncio.sleep(0.05)


def seed(home: Path) -> None:
    """A lake with 60 listed items, a feature plan and a published set of models in Triton's repository too."""
    items = [listed(f"i{j}", stock=0 if j == 0 else 9, category=f"c{j % 5}") for j in range(60)]
    columns = ItemListed.__struct_fields__
    table = pa.table({name: [getattr(item, name) for item in items] for name in columns if name != "type"})
    event_lake.write_import(home / "lake", ItemListed.topic, table, 0)
    (home / "features").mkdir(parents=True)
    (home / "features" / "plan.json").write_bytes((ROOT / "tests" / "plan.json").read_bytes())
    bundles = publish(home / "published", home / "scratch", "1")
    served = (("two_tower_user", "two-tower", "user_encoder.onnx"), ("preranker", "preranker", "model.onnx"),
              ("ranker", "ranker", "model.onnx"))
    for model, name, file in served:
        folder = home / "triton" / model / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(bundles[name].path(file).read_bytes())
        config = ROOT / "deploy" / "triton" / model / "config.pbtxt"
        (folder.parent / "config.pbtxt").write_bytes(config.read_bytes())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Part, Part, dict[str, str]]]:
    home = tmp_path_factory.mktemp("home")
    seed(home)
    redis_port, http, grpc, metrics = free_ports(4)
    redis = redis_server.launch(home / "redis", host=HOST, port=redis_port)
    try:
        triton = triton_server.launch(
            home / "run", models=home / "triton", host=HOST, http_port=http, grpc_port=grpc, metrics_port=metrics)
    except CannotRun as reason:
        pytest.skip(reason.detail)

    def redis_ready() -> bool:
        return redis_server.ready(HOST, redis_port)

    def triton_ready() -> bool:
        return triton_server.ready(HOST, http)

    with (running(redis, log=home / "redis.log", ready=redis_ready) as one,
          running(triton, log=home / "triton.log", ready=triton_ready) as two):
        addresses = {"redis_url": f"redis://{HOST}:{redis_port}/0", "triton_grpc": f"{HOST}:{grpc}"}
        yield (home, Part(redis, redis_ready, home / "redis.log", one),
               Part(triton, triton_ready, home / "triton.log", two), addresses)


@pytest.fixture
async def world(parts: tuple[Path, Part, Part, dict[str, str]]) -> AsyncIterator[World]:
    home, redis, triton, addresses = parts
    generous = {f"budget_{stage}_ms": 2000.0 for stage in ("retrieve", "prerank", "rank", "rerank", "features")}
    settings = Settings(_env_file=None, home=home, kafka_bootstrap=f"{HOST}:9", **addresses, **generous)
    app = build(settings)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    async with app.router.lifespan_context(app), client:
        assert (await client.get("/readyz")).status_code == 200
        yield World(app, client, redis, triton)


async def test_healthy_but_for_kafka_which_was_never_there(world: World) -> None:
    await world.until("kafka_down", there=True, within_s=10)
    answer, _ = await world.ask()
    assert answer["degraded"] == ["kafka_down"]
    assert answer["cold_start"] is None
    stranger, _ = await world.ask("stranger")
    assert stranger["cold_start"] == "new_visitor"
    decision = await world.client.get(f"/v1/decisions/{answer['request_id']}")
    assert decision.json()["items"] == answer["items"]


async def test_redis_hung_costs_its_time_out_then_nothing_and_comes_back(world: World) -> None:
    await world.until("redis_down", there=False, within_s=10)
    world.redis.signal(signal.SIGSTOP)
    try:
        times = [await world.ask() for _ in range(12)]
        assert all("redis_down" in answer["degraded"] for answer, _ in times)
        assert sorted(took for _, took in times)[8] < 5  # a frozen Redis never answers
    finally:
        world.redis.signal(signal.SIGCONT)
    await world.until("redis_down", there=False, within_s=30)


async def test_redis_killed_and_back_empty(world: World) -> None:
    world.redis.kill()
    await world.until("redis_down", there=True, within_s=5)
    with world.redis.started():
        await world.until("redis_down", there=False, within_s=30)


async def test_triton_killed_runs_the_same_version_here_and_recovers(world: World) -> None:
    await world.until("triton_down", there=False, within_s=30)
    world.triton.kill()
    await world.until("triton_down", there=True, within_s=5)
    answer, _ = await world.ask()
    assert not {"prerank_skipped", "rank_skipped", "retrieve_late"} & set(answer["degraded"])
    with world.triton.started():
        await world.until("triton_down", there=False, within_s=30)
