"""More replicas under load: the balancer spreads, partitions move, nothing is lost; and back again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from pipelines.stack.compose import engine
from pipelines.stack.compose.engine import compose
from tests.compose import composed

SCALED_S = 120.0
REQUESTS = 'minimart_http_requests_total{method="POST",route="/v1/recommendations"'


@pytest.fixture(autouse=True)
def one_of_each() -> Iterator[None]:
    if not composed.containers("balancer"):
        pytest.skip("the composed platform does not run: make test-compose starts it")
    yield
    for service in ("recommender", "stream_features"):
        scale(service, 1)


def scale(service: str, replicas: int) -> None:
    """Bring a service to this many replicas, all well."""
    command = compose("up", "--detach", "--no-deps", "--no-recreate", "--no-build", "--scale", f"{service}={replicas}")
    engine.ask([*command, service], timeout_s=SCALED_S)
    ready = lambda: len(composed.containers(service)) == replicas and composed.is_well(service)  # noqa: E731
    composed.wait_for(f"{replicas} of {service}", ready, SCALED_S)


def test_the_balancer_spreads_over_three_and_a_killed_one_costs_its_own_requests() -> None:
    with composed.traffic() as mine:
        scale("recommender", 3)
        time.sleep(12)
        replicas = composed.containers("recommender")
        taken = [composed.metric(one, 8082, REQUESTS) for one in replicas]
        killed = time.monotonic()
        composed.kill_process(replicas[0])
        composed.wait_for("the killed replica", lambda: composed.is_well("recommender"), SCALED_S)
    assert all(taken), f"a replica was not asked: {taken}"
    bad = mine.bad()
    assert len(bad) <= 1, f"{len(bad)} answers failed, where one was in flight: {bad}"
    assert all(abs(one.at - killed) < 15 for one in bad)
    composed.check_conservation(mine)


def test_partitions_move_between_workers_and_nothing_is_lost() -> None:
    with composed.traffic() as mine:
        time.sleep(2)
        scale("stream_features", 2)
        composed.wait_for("partitions at both workers", lambda: sorted(map(len, owned())) == [2, 2], SCALED_S, 2)
        time.sleep(5)
        scale("stream_features", 1)
        composed.wait_for("all partitions at one worker", lambda: sorted(map(len, owned())) == [4], SCALED_S, 2)
        time.sleep(2)
    assert not mine.bad()
    composed.check_conservation(mine)


def owned() -> list[set[str]]:
    """The partitions that each worker says it owns, from the newest such line of its log."""
    found = []
    for one in composed.containers("stream_features"):
        lines = [line for line in log_of(one).splitlines() if "partitions_owned" in line]
        found.append(partitions(lines[-1]) if lines else set())
    return found


def log_of(one: engine.Container) -> str:
    done = subprocess.run(["docker", "logs", one.id], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, timeout=30, check=True)  # fmt: skip
    return done.stdout


def partitions(line: str) -> set[str]:
    """The numbers in `partitions` of a log line, JSON or text."""
    inner = line.partition("partitions")[2].partition("[")[2].partition("]")[0]
    return {number.strip() for number in inner.split(",") if number.strip()}
