"""Kill each container in turn under light load: answers go on, it comes back, and every accepted event counts once."""

from __future__ import annotations

import time

import pytest

from pipelines.stack.compose import engine
from pipelines.stack.compose.engine import compose
from tests.compose import composed

BACK_S = 120.0
SAID = {"redis": "redis_down", "triton": "triton_down", "kafka": "kafka_down"}
ANSWERS_COME_FROM = ("recommender", "balancer")  # without replicas they are away until they are back
STAY = (
    "kafka", "redis", "triton", "postgres", "object-store", "mlflow", "clickhouse", "collector", "event_log",
    "stream_features", "feature_server", "recommender", "balancer", "shop", "simulator", "analytics", "controller",
    "console", "monitor", "prometheus", "alertmanager", "grafana",
)  # fmt: skip


@pytest.fixture(autouse=True)
def healthy() -> None:
    """Every test begins with all containers well and answers that lack nothing."""
    if not composed.containers("balancer"):
        pytest.skip("the composed platform does not run: make test-compose starts it")
    composed.wait_for("all containers well", lambda: all(map(composed.is_well, composed.services())), BACK_S)
    with composed.httpx.Client(timeout=10, trust_env=False) as client:
        url = composed.address("balancer")
        composed.wait_for("a whole answer", lambda: whole(composed.feed(client, url, "u00001")), BACK_S)


def whole(answer: composed.Answer) -> bool:
    return answer.status == 200 and not answer.degraded


def test_every_service_is_killed_below() -> None:
    assert set(composed.services()) <= set(STAY)


@pytest.mark.parametrize("service", STAY)
def test_a_killed_container_comes_back_and_nothing_is_lost(service: str) -> None:
    if service not in composed.services():
        pytest.skip(f"{service} is not part of this project")
    victim, *_ = composed.containers(service)
    before = composed.started_at(victim)
    with composed.traffic() as mine:
        time.sleep(2)
        killed = time.monotonic()
        composed.kill_process(victim)
        composed.wait_for(f"{service} to be started again", lambda: composed.started_at(victim) != before, BACK_S)
        composed.wait_for(f"{service} to be well", lambda: composed.is_well(service), BACK_S)
        back = time.monotonic()
        time.sleep(3)
    bad = mine.bad()
    if service in ANSWERS_COME_FROM:
        assert all(killed - 0.5 <= one.at + one.seconds <= back + 1 for one in bad), bad
        assert mine.answers[-1].status == 200
    else:
        assert not bad, f"{len(bad)} of {len(mine.answers)} answers failed: {bad[:3]}"
    composed.check_conservation(mine)


@pytest.mark.parametrize("service", list(SAID))
def test_answers_say_what_is_missing_while_it_is_away(service: str) -> None:
    with composed.traffic() as mine:
        time.sleep(1)
        engine.ask(["docker", "kill", composed.containers(service)[0].id])
        time.sleep(8)
        engine.ask(["docker", "start", composed.containers(service)[0].id])
        composed.wait_for(f"{service} to be well", lambda: composed.is_well(service), BACK_S)
    assert not mine.bad()
    assert mine.said()[SAID[service]], f"of {len(mine.answers)} answers said {dict(mine.said())}"
    composed.check_conservation(mine)


def test_a_restart_of_kafka_under_load_loses_and_doubles_nothing() -> None:
    with composed.traffic() as mine:
        time.sleep(5)
        engine.ask(compose("restart", "kafka"), timeout_s=120)
        composed.wait_for("Kafka to be well", lambda: composed.is_well("kafka"), BACK_S)
        time.sleep(5)
    assert not mine.bad()
    composed.check_conservation(mine)
