"""Rollouts on real parts: two controller processes and one Redis, and a recommender whose answers show who serves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.pointers import Rollout, read_rollout, set_rollout
from adapters.rollout_state import RedisRolloutStore
from models.rollout.shares import arm_of
from models.rollout.state import Ref
from pipelines.stack.launch import free_ports
from services.recommender.main import build
from settings import Settings
from tests.integration.conftest import redis_process
from tests.integration.test_recommender_faults import seed
from tests.unit.recommender_bundles import publish

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent.parent


def wait_for(what: Any, within_s: float = 30.0) -> Any:
    """The first true value of `what()`."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it never came")


def test_a_token_only_rises_and_an_older_one_writes_nothing(redis_url: str) -> None:
    one, two = RedisRolloutStore(redis_url), RedisRolloutStore(redis_url)
    first = one.acquire("one", 300, floor=41)
    assert first is not None
    assert first >= 42
    assert one.acquire("one", 300, floor=0) == first, "renewed, not new"
    assert two.acquire("two", 300, floor=0) is None
    assert one.save("one", first, b"a")
    second = wait_for(lambda: two.acquire("two", 5000, floor=0))
    assert second > first
    assert not one.save("one", first, b"late")
    assert not two.save("two", first, b"wrong token")
    assert two.save("two", second, b"b")
    assert one.load() == b"b"
    one.release("one", first)
    assert one.acquire("one", 300, floor=0) is None, "only the holder can release"
    two.release("two", second)
    assert one.acquire("one", 300, floor=0) == second + 1
    one.release("one", second + 1)


class Process:
    """One controller of its own, on the world of the test."""

    def __init__(self, home: Path, redis: str, port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        environment = {
            **os.environ, "MINIMART_HOME": str(home), "MINIMART_REDIS_URL": redis,
            "MINIMART_CONTROLLER_PORT": str(port),
            "MINIMART_KAFKA_BOOTSTRAP": f"{HOST}:1", "MINIMART_MLFLOW_URI": f"http://{HOST}:1",
            "MINIMART_CLICKHOUSE_PORT": "2", "MINIMART_RECOMMENDER_PORT": "3", "MINIMART_DRIFT_EVERY_S": "3600",
        }  # fmt: skip
        command = [sys.executable, "-m", "services.controller"]
        log = (home / f"controller-{port}.log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def rollout(self) -> dict[str, Any]:
        try:
            return dict(httpx.get(self.url + "/v1/rollout", timeout=2).json())
        except httpx.HTTPError:
            return {}

    def wish(self, what: str) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/rollout/{what}", json={"reason": "a test", "actor": "test"}, timeout=10)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)


@contextmanager
def controllers(home: Path, redis: str, count: int) -> Iterator[list[Process]]:
    started = [Process(home, redis, port) for port in free_ports(count)]
    try:
        yield started
    finally:
        for one in started:
            one.kill()


def test_two_controllers_never_act_at_once(tmp_path: Path) -> None:
    publish(tmp_path / "published", tmp_path / "scratch", "1")
    with redis_process(tmp_path / "redis") as redis, controllers(tmp_path, redis, 2) as both:
        leader = wait_for(lambda: next((c for c in both if c.rollout().get("leader")), None))
        other = next(c for c in both if c is not leader)
        wait_for(other.rollout)
        assert other.rollout()["leader"] is False
        assert leader.wish("hold").status_code == 202
        wait_for(lambda: other.rollout()["holds"])  # who stands by tells the state too
        refused = other.wish("hold")
        assert (refused.status_code, "another controller leads" in refused.json()["detail"]) == (503, True)

        first = read_rollout(tmp_path / "published").epoch
        leader.process.send_signal(signal.SIGSTOP)  # it sleeps through its lease
        wait_for(lambda: other.rollout().get("leader"))
        told = other.rollout()
        assert (told["state"], told["holds"]["recommender"]["actor"]) == ("healthy", "test")
        assert told["epoch"] > first
        assert other.wish("resume").status_code == 202
        written = read_rollout(tmp_path / "published")
        leader.process.send_signal(signal.SIGCONT)
        wait_for(lambda: leader.rollout().get("leader") is False)
        assert leader.wish("hold").status_code == 503
        assert read_rollout(tmp_path / "published") == written
        lines = [json.loads(line) for line in (tmp_path / "rollout" / "audit.jsonl").read_text().splitlines()]
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))

        other.kill()
        wait_for(lambda: leader.rollout().get("leader"))
        assert leader.rollout()["holds"] == {}


async def test_a_rollback_is_seen_in_the_answers(tmp_path: Path, redis_url: str) -> None:
    seed(tmp_path)
    bundles = publish(tmp_path / "published", tmp_path / "scratch", "2", weight=-1.0, current=False)
    refs = {name: Ref(bundle.version, bundle.manifest_sha256) for name, bundle in bundles.items()}
    (port,) = free_ports(1)
    settings = Settings(
        home=tmp_path, redis_url=redis_url, kafka_bootstrap=f"{HOST}:{port}", triton_grpc=f"{HOST}:{port}"
    )  # fmt: skip
    app = build(settings)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://r") as client:
        for _ in range(100):
            if (await client.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.1)

        async def arms() -> dict[str, tuple[str, set[str]]]:
            """Shopper -> (arm, versions) of one answer each."""
            found = {}
            for user in (f"u{i}" for i in range(24)):
                answer = (await client.post("/v1/recommendations", json={"user_id": user})).json()
                versions = {v for name, v in answer["model_versions"].items() if name != "features"}
                found[user] = (answer["arm"], versions)
            return found

        set_rollout(tmp_path / "published", Rollout(
            epoch=1, state="canary_50", rollout="r-1", salt="r-1", challenger=refs, canary_percent=50))  # fmt: skip
        async with asyncio.timeout(20):
            while "canary" not in {arm for arm, _ in (await arms()).values()}:
                await asyncio.sleep(0.1)
        for user, (arm, versions) in (await arms()).items():
            assert arm == arm_of(user, "r-1", 50)
            assert versions == ({"2"} if arm == "canary" else {"1"}), "an answer never mixes versions"

        set_rollout(tmp_path / "published", Rollout(epoch=2, state="rolled_back", rollout="r-1"))
        async with asyncio.timeout(5):
            while (await client.get("/v1/lineups")).json()["state"] != "rolled_back":
                await asyncio.sleep(0.05)
        assert {tuple(versions) for _, versions in (await arms()).values()} == {("1",)}
        lineups = (await client.get("/v1/lineups")).json()
        assert (lineups["challenger"], lineups["epoch"]) == (None, 2)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("gate", ["failed", "pending"])
async def test_an_ungated_challenger_never_answers(tmp_path: Path, redis_url: str, gate: Any) -> None:
    seed(tmp_path)
    bundles = publish(tmp_path / "published", tmp_path / "scratch", "2", gate=gate, current=False)
    refs = {name: Ref(b.version, digest(b.folder / "manifest.json")) for name, b in bundles.items()}
    set_rollout(tmp_path / "published", Rollout(
        epoch=1, state="canary_100", rollout="r-1", salt="r-1", challenger=refs, canary_percent=100, bypass=True,
    ))  # fmt: skip
    settings = Settings(home=tmp_path, redis_url=redis_url, kafka_bootstrap=f"{HOST}:1", triton_grpc=f"{HOST}:1",
                        rollout_gate_bypass=True)
    app = build(settings)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://r") as client:
        answer = (await client.post("/v1/recommendations", json={"user_id": "u1"})).json()
        assert (answer["arm"], answer["model_versions"]["ranker"]) == ("champion", "1")
        assert "gate" in (await client.get("/v1/lineups")).json()["refused"]["challenger"]
