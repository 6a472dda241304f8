"""The services that a drill talks to, over HTTP: the controller, the recommender, the simulator, the collector.

A drill goes on while one of them is away (it may have killed it): questions then give None, commands raise.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from adapters.errors import BadInput, Unavailable
from settings import Settings

ACTOR: Final = "drill"
_ACCEPTED: Final = re.compile(r'^minimart_events_total\{[^}]*outcome="accepted"[^}]*\} ([0-9.e+]+)$', re.MULTILINE)


class Neighbours:
    """What a drill asks of and tells the platform."""

    def __init__(self, settings: Settings, http: httpx.Client | None = None) -> None:
        self.settings = settings
        self.http = http or httpx.Client(timeout=10, trust_env=False)

    def rollout(self) -> dict[str, Any] | None:
        """The controller's state with its history, newest first; None while it is away."""
        return self._ask("controller", "/v1/rollout")

    def lineups(self) -> dict[str, Any] | None:
        """What the recommender has loaded; None while it is away."""
        return self._ask("recommender", "/v1/lineups")

    def command(self, verb: str, reason: str, **more: Any) -> dict[str, Any]:
        """hold, resume, promote, rollback, retrain or check. Raises BadInput where the state refuses, Unavailable."""
        return self._tell("controller", f"/v1/rollout/{verb}", {"reason": reason, "actor": ACTOR, **more})

    def challenger(self, folder: Path, *, bypass: bool, reason: str) -> dict[str, Any]:
        """Give the controller a challenger by hand. Raises BadInput where it refuses it, Unavailable."""
        body = {"folder": str(folder), "bypass": bypass, "reason": reason, "actor": ACTOR}
        return self._tell("controller", "/v1/challengers", body)

    def set_scenario(self, shares: Mapping[str, float], *, reset: bool = True) -> dict[str, Any]:
        return self._tell("simulator", "/v1/scenario", {**shares, "reset": reset})

    def set_rate(self, feeds: float | None, searches: float | None) -> dict[str, Any]:
        """Rates a second; None is what the settings say."""
        return self._tell("simulator", "/v1/rate", {"feeds_per_second": feeds, "searches_per_second": searches})

    def events_accepted(self) -> int:
        """Events that the collector took so far; 0 while it is away."""
        try:
            text = self.http.get(f"{self.settings.url('collector')}/metrics").text
        except httpx.HTTPError:
            return 0
        return int(sum(float(value) for value in _ACCEPTED.findall(text)))

    def ready(self, part: str) -> bool:
        try:
            return self.http.get(f"{self.settings.url(part)}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self, part: str, timeout_s: float) -> None:
        """Raises Unavailable when it is not ready in time."""
        deadline = time.monotonic() + timeout_s
        while not self.ready(part):
            if time.monotonic() > deadline:
                raise Unavailable(f"{part} is not ready after {timeout_s:.0f} s: make status, make logs S={part}")
            time.sleep(0.3)

    def _ask(self, part: str, path: str) -> dict[str, Any] | None:
        try:
            answer = self.http.get(self.settings.url(part) + path)
            return dict(answer.json()) if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    def _tell(self, part: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        url = self.settings.url(part) + path
        try:
            answer = self.http.post(url, json=body)
            said: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"{part} at {url}: {type(error).__name__} {error}") from None
        if answer.is_error:
            kind = Unavailable if answer.status_code >= 500 else BadInput
            raise kind(f"{part} {path}: {said.get('detail', said)}")
        return said
