"""Several workers behind one port: one set of metrics, no lost decisions, nobody in flight fails at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pipelines.stack.launch import Launch, free_ports, running
from tests.integration.test_recommender_faults import HOST, seed

PATIENCE_S = 300.0


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def metric(url: str, name: str, **labels: str) -> float:
    """The sum of a sample over what `labels` do not name."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def workers(url: str, n: int = 40) -> set[int]:
    """The processes that answered some requests, each on a connection of its own."""
    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda _: httpx.get(f"{url}/pid", timeout=30).json()["pid"], range(n)))


def cores(url: str) -> dict[int, list[int]]:
    """The cores that each process keeps to."""
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: httpx.get(f"{url}/pid", timeout=30).json(), range(40))
        return {one["pid"]: one["cores"] for one in found}


def until(happens: Callable[[], bool]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < over
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_workers_count_together_are_replaced_and_drain(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    launch = Launch((sys.executable, "-m", "tests.integration.toy_workers", str(port), str(tmp_path / "gate")))
    with running(launch, log=tmp_path / "log", ready=lambda: answers(url), timeout_s=PATIENCE_S) as process:
        until(lambda: len(workers(url)) == 2)
        before = metric(url, "minimart_http_requests_total", route="/pid")
        first = workers(url, 50)
        assert metric(url, "minimart_http_requests_total", route="/pid") == before + 50
        assert metric(url, "minimart_http_request_seconds_count", route="/pid") == before + 50
        assert metric(url, "minimart_http_in_flight") == 1, "this very look at the metrics"
        assert metric(url, "process_resident_memory_bytes") > 2 * 20e6

        kept = cores(url)
        assert [len(one) for one in kept.values()] == [1, 1], "each keeps to a core"
        assert len({one[0] for one in kept.values()}) == min(2, len(os.sched_getaffinity(0))), "of its own"
        os.kill(min(first), signal.SIGKILL)
        until(lambda: len(workers(url) - {min(first)}) == 2)
        assert sorted(cores(url).values()) == sorted(kept.values()), "the new one takes the core of the dead one"
        assert metric(url, "minimart_http_requests_total", route="/pid") >= before + 50, "the dead one's are kept"
        assert metric(url, "minimart_http_in_flight") == 1

        with ThreadPoolExecutor(24) as pool:
            asked = [pool.submit(httpx.get, f"{url}/slow", timeout=60) for _ in range(24)]
            until(lambda: metric(url, "minimart_http_in_flight") >= 24)
            last = workers(url)
            process.send_signal(signal.SIGTERM)
            (tmp_path / "gate").touch()
            assert [one.result().status_code for one in asked] == [200] * 24, "what is in flight is answered"
        assert process.wait(60) == 0
        until(lambda: all(gone(pid) for pid in last))


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    launch = Launch((sys.executable, "-m", "tests.integration.toy_workers", str(port), str(tmp_path / "gate")))
    with running(launch, log=tmp_path / "log", ready=lambda: answers(url), timeout_s=PATIENCE_S) as process:
        left = workers(url)
        process.kill()
        until(lambda: all(gone(pid) for pid in left))
        until(lambda: not answers(url))


def test_two_recommenders_find_one_anothers_decisions(tmp_path: Path) -> None:
    seed(tmp_path)
    port, nobody = free_ports(2)
    url = f"http://{HOST}:{port}"
    environment = {
        "MINIMART_HOME": str(tmp_path), "MINIMART_RECOMMENDER_PORT": str(port), "MINIMART_RECOMMENDER_WORKERS": "2",
        "MINIMART_KAFKA_BOOTSTRAP": f"{HOST}:{nobody}", "MINIMART_REDIS_URL": f"redis://{HOST}:{nobody}/0",
        "MINIMART_RECOMMENDER_MODELS": "in_process", "MINIMART_PORT_OFFSET": "0",
    }  # fmt: skip
    launch = Launch((sys.executable, "-m", "services.recommender"), environment)
    with running(launch, log=tmp_path / "log", ready=lambda: answers(url), timeout_s=PATIENCE_S) as process:
        until(lambda: metric(url, "minimart_admission_limit") == 32)
        answer = httpx.post(f"{url}/v1/recommendations", json={"user_id": "u3"}, timeout=30).json()
        assert "triton_down" not in answer["degraded"]
        for _ in range(12):  # each on a connection of its own: either worker is asked
            found = httpx.get(f"{url}/v1/decisions/{answer['request_id']}", timeout=30)
            assert found.json()["items"] == answer["items"]
        assert metric(url, "minimart_arm_answers_total") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_taken_port_is_said_in_one_line() -> None:
    (port,) = free_ports(1)
    with socket.socket() as held:
        held.bind((HOST, port))
        held.listen()
        command = [sys.executable, "-m", "tests.integration.toy_workers", str(port), os.devnull]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"cannot listen on {HOST}:{port}" in ended.stderr
