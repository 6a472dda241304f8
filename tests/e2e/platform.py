"""A running platform as the end-to-end tests use it: addresses, questions, faults."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import httpx

from pipelines.stack.supervisor import Supervisor
from settings import ROOT, Settings

SMALL: Final[dict[str, Any]] = {"sim_shoppers": 800, "sim_items": 600, "sim_days": 10, "sim_live_rate": 0.5}
OURS: Final = ("collector", "event_log", "recommender", "shop", "simulator", "stream_features")
T = TypeVar("T")


class Platform:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.http = httpx.Client(timeout=10, trust_env=False)
        self.screenshots = settings.home / "screenshots"
        self.screenshots.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """For commands that are to work on this platform."""
        return {**os.environ, **self.settings.given()}

    def run(self, module: str, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """`python -m module ...` on this platform."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def kill(self, part: str) -> None:
        """kill -9; the part stays down until `start`."""
        done = self.run("pipelines.stack", "kill", part)
        assert done.returncode == 0, done.stderr

    def start(self, part: str) -> None:
        done = self.run("pipelines.stack", "start", part)
        assert done.returncode == 0, done.stderr

    def pids(self) -> dict[str, int]:
        """Process ids of our own services."""
        return {name: pid for name in OURS if (pid := self.pid(name))}

    def pid(self, part: str) -> int:
        """Process id of a part, 0 where it does not run."""
        found = Supervisor(self.settings.home).processes().get(part)
        return found.pid if found else 0

    def recommend(self, user_id: str, k: int = 20) -> dict[str, Any]:
        """A feed, checked to be a valid answer: 200 with k distinct items in positions 1 to k."""
        url = f"{self.settings.url('recommender')}/v1/recommendations"
        answer = self.http.post(url, json={"user_id": user_id, "k": k})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        items = [item["item_id"] for item in body["items"]]
        assert len(items) == k
        assert len(set(items)) == k
        assert [item["position"] for item in body["items"]] == list(range(1, k + 1))
        return body

    def decision(self, request_id: str) -> dict[str, Any]:
        answer = self.http.get(f"{self.settings.url('recommender')}/v1/decisions/{request_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def send(self, *events: Mapping[str, Any], ack: bool = False) -> dict[str, Any]:
        """Events to the collector; all must be accepted."""
        url = f"{self.settings.url('collector')}/v1/events"
        answer = self.http.post(url, params={"ack": "true"} if ack else {}, json=list(events))
        assert answer.status_code == 202, answer.text
        body = dict(answer.json())
        assert body["accepted"] == len(events), body
        return body


def wait_for(what: str, look: Callable[[], T | None], timeout_s: float, every_s: float = 0.1) -> T:
    """The first thing that `look` finds; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(every_s)
