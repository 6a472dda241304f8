"""Several recommenders behind one port: one set of metrics, no lost decisions, nobody in flight fails at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.client import drive
from pipelines.stack.launch import Launch, free_ports, running
from tests.integration.test_recommender_faults import HOST, seed

BODY = b'{"user_id": "u3", "k": 20}'


class Served:
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://{HOST}:{port}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a sample over what `labels` do not name."""
        found = [
            sample.value
            for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, name
        return sum(found)

    def workers(self) -> list[int]:
        """Their process ids; the parent's other child keeps track of what they share."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    seed(tmp_path)
    port, nobody = free_ports(2)
    environment = {
        "MINIMART_HOME": str(tmp_path), "MINIMART_RECOMMENDER_PORT": str(port), "MINIMART_RECOMMENDER_WORKERS": "2",
        "MINIMART_KAFKA_BOOTSTRAP": f"{HOST}:{nobody}", "MINIMART_TRITON_GRPC": f"{HOST}:{nobody}",
        "MINIMART_REDIS_URL": f"redis://{HOST}:{nobody}/0", "MINIMART_RECOMMENDER_IN_FLIGHT": "64",
        "MINIMART_RECOMMENDER_QUEUE_MS": "5000",
    }  # fmt: skip
    launch = Launch((sys.executable, "-m", "services.recommender"), environment)

    def ready() -> bool:
        try:
            return httpx.get(f"http://{HOST}:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    with running(launch, log=tmp_path / "recommender.log", ready=ready, timeout_s=600) as process:
        yield Served(process, port)


async def ask(port: int, n: int, rate: float) -> list[int]:
    times = np.arange(n) / rate
    return [r.status for r in await drive(HOST, port, "/v1/recommendations", times, [BODY] * n, timeout_s=30)]


def test_workers_count_together_share_decisions_and_drain(served: Served) -> None:
    until = time.monotonic() + 120
    while len(served.workers()) < 2 or served.metric("minimart_admission_limit") < 128:
        assert time.monotonic() < until, "the second worker is not there"
        time.sleep(0.1)
    first = served.workers()

    assert asyncio.run(ask(served.port, 60, 100)) == [200] * 60
    route = {"route": "/v1/recommendations", "status": "200"}
    assert served.metric("minimart_http_requests_total", **route) == 60
    assert served.metric("minimart_http_request_seconds_count", route="/v1/recommendations") == 60
    assert served.metric("minimart_http_in_flight") == 1, "this very look at the metrics"
    assert served.metric("process_resident_memory_bytes") > 2 * 50e6

    answer = httpx.post(f"{served.url}/v1/recommendations", content=BODY, headers={"content-type": "application/json"})
    request_id = answer.json()["request_id"]
    for _ in range(12):  # each on a connection of its own: either worker finds what one of them answered
        found = httpx.get(f"{served.url}/v1/decisions/{request_id}")
        assert found.json()["items"] == answer.json()["items"]

    os.kill(first[0], signal.SIGKILL)
    until = time.monotonic() + 120
    while len(served.workers()) < 2 or served.workers() == first:
        assert time.monotonic() < until, "the dead worker is not replaced"
        time.sleep(0.1)
    assert served.metric("minimart_http_requests_total", **route) == 61, "what the dead one counted is not forgotten"

    async def stop_under_load() -> list[int]:
        load = asyncio.create_task(ask(served.port, 40, 400))
        await asyncio.sleep(0.12)
        served.process.send_signal(signal.SIGTERM)
        return await load

    statuses = asyncio.run(stop_under_load())
    assert statuses == [200] * 40, "what was sent before the end is answered"
    assert served.process.wait(30) == 0
