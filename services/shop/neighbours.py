"""The two services that the shop talks to over HTTP. Their failures become Unavailable, for pages to say kindly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import msgspec

from adapters.errors import NotFound, Unavailable
from adapters.telemetry import NEIGHBOUR_ERRORS
from feature_repo.events import Event

FEED_SECONDS: Final = 3.0
EVENT_SECONDS: Final = 1.5


@dataclass(frozen=True)
class Feed:
    """One answer of the recommender; `items` as it gave them: item_id, score, sources, position, new."""

    request_id: str
    items: Sequence[Mapping[str, Any]]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    model_versions: Mapping[str, str] = field(default_factory=dict)
    degraded: Sequence[str] = ()
    cold_start: str | None = None


class Recommender:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def feed(self, user_id: str, k: int, device: str, of_age: bool) -> Feed:
        """`k` products for a shopper. Raises Unavailable."""
        body = {"user_id": user_id, "k": k, "surface": "home", "context": {"device": device, "of_age": of_age}}
        answer = (
            await _call(self._client, "recommender", "POST", "/v1/recommendations", FEED_SECONDS, json=body)
        ).json()
        return Feed(
            request_id=str(answer["request_id"]),
            items=answer["items"],
            timings_ms=answer.get("timings_ms", {}),
            model_versions=answer.get("model_versions", {}),
            degraded=answer.get("degraded", ()),
            cold_start=answer.get("cold_start"),
        )

    async def decision(self, request_id: str) -> dict[str, Any]:
        """Everything the recommender recorded about one answer. Raises NotFound, Unavailable."""
        path = f"/v1/decisions/{request_id}"
        answer = await _call(self._client, "recommender", "GET", path, FEED_SECONDS, missing_ok=True)
        if answer.status_code == 404:
            raise NotFound(f"The recommender has no decision {request_id}.")
        return dict(answer.json())


class Collector:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, *events: Event) -> None:
        """Hand over events; returns once all are accepted. Raises Unavailable, also where one is refused."""
        body = msgspec.json.encode(list(events))
        headers = {"Content-Type": "application/json"}
        answer = await _call(
            self._client, "collector", "POST", "/v1/events", EVENT_SECONDS, content=body, headers=headers
        )
        refused = answer.json().get("refused", [])
        if refused:
            raise Unavailable(f"The collector refused an event: {refused[0].get('reason', 'no reason given')}")


async def _call(
    client: httpx.AsyncClient,
    name: str,
    method: str,
    path: str,
    seconds: float,
    *,
    missing_ok: bool = False,
    **request: Any,
) -> httpx.Response:
    try:
        answer = await client.request(method, path, timeout=seconds, **request)
    except httpx.HTTPError as error:
        NEIGHBOUR_ERRORS.labels("shop", name).inc()
        raise Unavailable(f"The {name} did not answer ({type(error).__name__}).") from None
    if answer.is_success or (missing_ok and answer.status_code == 404):
        return answer
    NEIGHBOUR_ERRORS.labels("shop", name).inc()
    raise Unavailable(f"The {name} answered {answer.status_code}.")
