"""The drill's own shoppers: an open-loop client whose answers are the evidence. It clicks as the planted truth says.

Requests leave by the clock, whether or not earlier ones were answered; latency counts from the intended moment. Each
answer is kept with the versions that made it. What was shown and clicked is sent to the collector at once, so that
the controller has the outcome of every answer within a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np

from adapters.web import uuid7
from models.marketplace.config import Scenario
from models.marketplace.truth import click_chances
from models.marketplace.world import COUNTRIES, DEVICES, user_id
from pipelines.drills.report import now_ms
from pipelines.drills.truth import Feeds, Truth
from settings import Settings

K: Final = 20
TIMEOUT_S: Final = 5.0
MOST_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came back. `sent_ms` is when it was due; `status` 0 means that nothing came back."""

    sent_ms: int
    answered_ms: int
    status: int
    user: int
    items: tuple[int, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    arm: str = ""
    rollout: str = ""
    degraded: tuple[str, ...] = ()
    clicks: int = 0

    @property
    def wait_ms(self) -> int:
        return self.answered_ms - self.sent_ms

    def version(self, model: str) -> str:
        """The version of one model that made this answer; "" where it had no part in it."""
        return dict(self.versions).get(model, "")


class OpenLoop:
    """Asks at `rate` a second in a thread of its own from `start` to `stop`; `answers` grows."""

    def __init__(self, settings: Settings, truth: Truth, *, rate: float, seed: int, clicks: bool = True) -> None:
        self.rate, self.clicks, self.scenario = rate, clicks, Scenario()
        self.answers: list[Answer] = []
        self._settings, self._truth = settings, truth
        self._rng = np.random.default_rng(seed)
        world = truth.world
        weight = world.activity * (world.joined_at <= now_ms())
        self._crowd = np.cumsum(weight / weight.sum(), dtype=np.float64)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="drill-shoppers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask no more, and wait for what is under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(TIMEOUT_S + 5)

    def since(self, from_ms: int, until_ms: int | None = None) -> list[Answer]:
        """The answers to requests that were due in this time."""
        return [a for a in list(self.answers) if from_ms <= a.sent_ms and (until_ms is None or a.sent_ms < until_ms)]

    def feeds(self, answers: list[Answer]) -> Feeds:
        """The feeds among these answers."""
        good = [a for a in answers if a.items]
        return Feeds(
            np.array([a.user for a in good], np.int64),
            np.array([a.items for a in good], np.int64).reshape(len(good), K),
            np.array([a.sent_ms for a in good], np.int64),
        )

    async def _run(self) -> None:
        going: set[asyncio.Task[None]] = set()
        due = time.time()
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
            while not self._stop.is_set():
                due = max(due + self._rng.exponential(1 / self.rate), time.time() - 1.0)
                await asyncio.sleep(max(0.0, due - time.time()))
                if len(going) < MOST_WAITING:
                    task = asyncio.create_task(self._visit(http, int(due * 1000)))
                    going.add(task)
                    task.add_done_callback(going.discard)
                else:
                    self.answers.append(Answer(int(due * 1000), now_ms(), 0, 0))
            await asyncio.gather(*going, return_exceptions=True)

    async def _visit(self, http: httpx.AsyncClient, due_ms: int) -> None:
        user, context = self._somebody()
        body = {"user_id": user_id(user), "surface": "home", "k": K, "context": {**context, "of_age": True}}
        try:
            response = await http.post(f"{self._settings.url('recommender')}/v1/recommendations", json=body)
            said: dict[str, Any] = response.json() if response.status_code == 200 else {}
        except (httpx.HTTPError, ValueError):
            self.answers.append(Answer(due_ms, now_ms(), 0, user))
            return
        answered = now_ms()
        if not said:
            self.answers.append(Answer(due_ms, answered, response.status_code, user))
            return
        ids = [str(item["item_id"]) for item in said["items"]]
        rows = self._truth.rows_of(ids, K)
        clicked = self._clicked(user, rows, answered)
        self.answers.append(Answer(
            due_ms, answered, 200, user, tuple(rows), tuple(said["model_versions"].items()), str(said.get("arm") or ""),
            str(said.get("rollout") or ""), tuple(said["degraded"]), len(clicked),
        ))  # fmt: skip
        if self.clicks:
            await self._tell(http, user, context, said["request_id"], ids, clicked)

    def _somebody(self) -> tuple[int, dict[str, str]]:
        """(user row, context): by activity; in a changed traffic mix also newcomers on phones of a rare country."""
        world, rng = self._truth.world, self._rng
        if rng.random() < self.scenario.traffic_mix:
            user = int(rng.integers(world.config.shoppers, len(world.taste)))
            context = {"device": "phone", "country": "SE"}
        else:
            user = int(np.searchsorted(self._crowd, rng.random() * self._crowd[-1], side="right"))
            device = int(world.device[user]) if rng.random() < 0.8 else int(rng.integers(len(DEVICES)))
            context = {"device": DEVICES[device], "country": COUNTRIES[int(world.country[user])]}
        return user, {} if rng.random() < self.scenario.nulls else context

    def _clicked(self, user: int, rows: list[int], now: int) -> list[int]:
        """0-based places that this shopper clicks."""
        world = self._truth.under(self.scenario)
        chances = click_chances(world, np.array([user]), np.array([rows], np.int64), np.array([now], np.int64))[0]
        return [int(place) for place in np.flatnonzero(self._rng.random(len(rows)) < chances)]

    async def _tell(
        self, http: httpx.AsyncClient, user: int, context: dict[str, str], request_id: str, ids: list[str],
        clicked: list[int],
    ) -> None:  # fmt: skip
        """What was shown and clicked; category and price are left to the collector's catalogue."""
        base = {"user_id": user_id(user), "session_id": f"s-{uuid7()}", **context}
        now = now_ms()
        shown = {"type": "products_shown", "event_id": uuid7(), "event_time": now, "item_ids": ids, **base}
        batch: list[dict[str, Any]] = [{**shown, "request_id": request_id}]
        if self._rng.random() >= self.scenario.silence:
            batch += [
                {"type": "product_clicked", "event_id": uuid7(), "event_time": now + 1 + n, "request_id": request_id,
                 "position": place + 1, "item_id": ids[place], **base} for n, place in enumerate(clicked)
            ]  # fmt: skip
        try:
            await http.post(f"{self._settings.url('collector')}/v1/events", json=batch)
        except httpx.HTTPError:
            return


def by_version(answers: list[Answer], model: str) -> dict[str, int]:
    """How many answers each version of a model had a part in."""
    count: dict[str, int] = {}
    for answer in answers:
        if answer.status == 200:
            count[answer.version(model)] = count.get(answer.version(model), 0) + 1
    return count


