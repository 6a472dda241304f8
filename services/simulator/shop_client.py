"""The two addresses a shopper's browser talks to: the recommender for feeds and the collector for events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import httpx
import structlog
from prometheus_client import Counter

from adapters.telemetry import NEIGHBOUR_ERRORS
from feature_repo import events
from settings import Settings

TIMEOUT_S: Final = 5.0
K: Final = 20
FEEDS: Final = Counter("minimart_simulator_feeds_total", "Feeds asked for, by outcome", ["outcome"])
SENT: Final = Counter("minimart_simulator_events_total", "Events sent to the collector, by outcome", ["outcome"])
_log = structlog.get_logger()


class ShopClient:
    """Never raises for a neighbour that is away: a feed is None, an event is counted as lost."""

    def __init__(self, settings: Settings) -> None:
        self._recommender, self._collector = settings.url("recommender"), settings.url("collector")
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=64))
        self.unreachable: dict[str, str] = {}
        self._told: set[tuple[str, int]] = set()

    async def feed(self, user: str, context: Mapping[str, str | bool]) -> tuple[str, list[str]] | None:
        """(request id, item ids from position 1 on), or None when there was no feed."""
        body = {"user_id": user, "surface": "home", "k": K, "context": context}
        answer = await self._post("recommender", f"{self._recommender}/v1/recommendations", json=body)
        if answer is None or answer.status_code != 200:
            FEEDS.labels(self._outcome("recommender", answer)).inc()
            return None
        said = answer.json()
        FEEDS.labels("degraded" if said.get("degraded") else "ok").inc()
        return str(said["request_id"]), [str(item["item_id"]) for item in said["items"]]

    async def send(self, batch: Sequence[events.Event]) -> bool:
        """Send events in one request; whether all of them were taken."""
        body = b"[" + b",".join(events.encode(e) for e in batch) + b"]"
        headers = {"content-type": "application/json"}
        answer = await self._post("collector", f"{self._collector}/v1/events", content=body, headers=headers)
        if answer is None or answer.status_code != 202:
            SENT.labels(self._outcome("collector", answer)).inc(len(batch))
            return False
        refused = answer.json()["refused"]
        SENT.labels("refused").inc(len(refused))
        SENT.labels("accepted").inc(len(batch) - len(refused))
        if refused:
            _log.warning("events_refused", count=len(refused), first=refused[0])
        return not refused

    def _outcome(self, neighbour: str, answer: httpx.Response | None) -> str:
        """The metric's label; the first of each kind of refusal is logged with what the neighbour said."""
        if answer is None:
            return "unreachable"
        if (neighbour, answer.status_code) not in self._told:
            self._told.add((neighbour, answer.status_code))
            _log.warning("neighbour_refused", neighbour=neighbour, status=answer.status_code, said=answer.text[:500])
        return f"status_{answer.status_code}"

    async def close(self) -> None:
        await self._http.aclose()

    async def _post(self, neighbour: str, url: str, **request: object) -> httpx.Response | None:
        try:
            answer = await self._http.post(url, **request)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            if neighbour not in self.unreachable:
                _log.warning("neighbour_unreachable", neighbour=neighbour, why=type(error).__name__)
            self.unreachable[neighbour] = type(error).__name__
            NEIGHBOUR_ERRORS.labels("simulator", neighbour).inc()
            return None
        if self.unreachable.pop(neighbour, None):
            _log.info("neighbour_back", neighbour=neighbour)
        return answer
