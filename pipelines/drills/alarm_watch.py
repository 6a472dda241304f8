"""A Prometheus of a drill's own: it reads the running parts by the platform's own rules, which only wait less."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from pipelines.stack import prometheus_server
from pipelines.stack.launch import Launch, free_ports, running
from pipelines.stack.parts import targets
from settings import Settings

INTERVAL_S: Final = 2
FOR_S: Final = 2
FORGET_S: Final = 12
STALE_SHARE: Final = 0.05
"""A topic is stale for the drill at this share of what its contract allows: 45 seconds of the clicks' 15 minutes."""


def rules_of(path: Path = prometheus_server.RULES) -> list[dict[str, Any]]:
    """The alert rules, as plain data."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def hurried(rules: list[dict[str, Any]]) -> dict[str, Any]:
    """A rule file in which an alert fires `FOR_S` seconds after its expression holds. Expressions stay as they are.

    But for TopicStale's: what a contract allows is minutes or hours.
    """
    quick = [rule | ({"for": f"{FOR_S}s"} if "for" in rule else {}) for rule in rules]
    for rule in quick:
        if rule["alert"] == "TopicStale":
            fresh = 'max by (topic) (minimart_topic_freshness_seconds{topic="shop.clicks"})'
            allowed = "max by (topic) (minimart_topic_freshness_seconds)"
            assert allowed in rule["expr"], rule["expr"]
            rule["expr"] = rule["expr"].replace(allowed, f"{STALE_SHARE} * {fresh}")
    return {"groups": [{"name": "hurried", "interval": f"{FOR_S}s", "rules": quick}]}


class Watch:
    """What fires now, by the drill's own Prometheus: on a free port, with its data in `folder`, deleted at the end."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(timeout=5, trust_env=False, base_url=f"http://127.0.0.1:{self._port}")
        self._hurried = folder / "hurried.yml"
        folder.mkdir(parents=True, exist_ok=True)
        self._hurried.write_text(json.dumps(hurried(rules_of())))  # JSON is YAML

    @contextlib.contextmanager
    def running(self) -> Iterator[Watch]:
        """Within: it runs. Raises CannotRun where Prometheus is not installed, Unavailable where it does not start."""
        start = self._launch()
        # What is read no longer is forgotten soon, and not after five minutes.
        start = Launch((*start.command, f"--query.lookback-delta={FORGET_S}s"), start.environment)
        with running(start, log=self._folder / "prometheus.log", ready=self._ready) as self._process:
            yield self
        shutil.rmtree(self._folder, ignore_errors=True)

    def firing(self) -> set[str]:
        """Names of the alerts that fire now; empty while it does not answer."""
        try:
            alerts = self._http.get("/api/v1/alerts").json()["data"]["alerts"]
        except (httpx.HTTPError, ValueError, KeyError):
            return set()
        return {str(alert["labels"]["alertname"]) for alert in alerts if alert["state"] == "firing"}

    def forget(self, *parts: str) -> None:
        """No longer read these parts' addresses, as where a container is gone; without any: all are back."""
        self._launch(*parts)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _launch(self, *without: str) -> Launch:
        found: list[tuple[str, str, str]] = [
            (one.name, target, one.metrics or "/metrics")
            for one, target in targets(self._settings) if one.name not in without
        ]  # fmt: skip
        return prometheus_server.launch(
            self._folder, host="127.0.0.1", port=self._port, alertmanager="", targets=found,
            interval=f"{INTERVAL_S}s", rules=self._hurried,
        )  # fmt: skip

    def _ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False


def severities(rules: list[dict[str, Any]]) -> Mapping[str, str]:
    return {rule["alert"]: rule["labels"]["severity"] for rule in rules}
