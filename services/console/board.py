"""What every panel shows, gathered from the neighbours at most once in a while, whoever looks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from services.console import panels
from services.console.figures import Figures
from services.console.neighbours import Neighbours, listens
from services.console.panels import FLOW, Panel

PROBES: Final[Mapping[str, str]] = {
    "triton": "/v2/health/live", "mlflow": "/health", "clickhouse": "/ping", "prometheus": "/-/ready",
    "alertmanager": "/-/ready",
}  # fmt: skip
PORTS: Final = ("kafka", "redis")
REPORTS: Final = 16


class Board:
    """`panels()` gives every panel's values by name; a look at the neighbours is shared for `fresh_s` seconds."""

    def __init__(
        self, neighbours: Neighbours, ports: Mapping[str, tuple[str, int]], drift: Path, *,
        clock: Callable[[], int], fresh_s: float = 1.5,
    ) -> None:  # fmt: skip
        """`ports`: where PORTS listen; `drift`: the folder of drift reports."""
        self._neighbours, self._ports, self._drift, self._clock = neighbours, ports, drift, clock
        self._figures, self._fresh_s = Figures(neighbours), fresh_s
        self._lock, self._looked, self._panels = asyncio.Lock(), -1e9, dict[str, Panel]()

    async def panels(self) -> dict[str, Panel]:
        """The panels as of now, or of a moment ago."""
        async with self._lock:
            if time.monotonic() - self._looked > self._fresh_s:
                self._panels = await self._look()
                self._looked = time.monotonic()
        return self._panels

    def stale(self) -> None:
        """Look again at once: something was just changed."""
        self._looked = -1e9

    async def _look(self) -> dict[str, Panel]:
        ask, now_ms = self._neighbours.get, self._clock()
        told = asyncio.gather(
            ask("controller", "/v1/rollout"), ask("controller", "/v1/versions"),
            ask("alertmanager", "/api/v2/alerts", active="true"), ask("monitor", "/v1/incidents", limit="8"),
            ask("simulator", "/v1/scenario"), ask("simulator", "/v1/rate"),
        )  # fmt: skip
        (rates, source), health, reports = await asyncio.gather(
            self._figures.now(), self._health(), asyncio.to_thread(reports_in, self._drift)
        )
        rollout, versions, alerts, incidents, scenario, live = await told
        return {
            "flow": {"columns": panels.flow(health, rates), "source": source},
            "rollout": panels.rollout_of(rollout),
            "versions": panels.versions_of(rollout, versions, rates, source),
            "latency": {"rows": panels.latency(rates), "source": source, "degraded": panels.degraded(rates)},
            "drift": panels.heat(reports),
            "alerts": {
                "alerts": panels.alerts_of(alerts), "incidents": panels.incidents_of(incidents, now_ms),
                "away": [answer.away for answer in (alerts, incidents) if answer.away],
            },
            "scenario": panels.scenario_of(scenario, live),
        }  # fmt: skip

    async def _health(self) -> dict[str, str]:
        """Part -> why it is not well; empty if it is."""
        http = [part for _, parts in FLOW for part in parts if part not in PORTS]
        asked = [self._neighbours.get(part, PROBES.get(part, "/readyz")) for part in http]
        open_ports = [listens(*self._ports[part]) for part in PORTS]
        answers, opened = await asyncio.gather(asyncio.gather(*asked), asyncio.gather(*open_ports))
        found = {part: answer.away for part, answer in zip(http, answers, strict=True)}
        return found | {p: "" if up else "Nothing listens there." for p, up in zip(PORTS, opened, strict=True)}


def reports_in(folder: Path) -> list[dict[str, Any]]:
    """The newest drift reports, oldest first. Files that cannot be read are left out."""
    found: list[dict[str, Any]] = []
    try:
        paths = [p for p in folder.glob("*.json") if p.stem not in ("latest", "healthy")]
    except OSError:
        return []
    for path in sorted(paths, key=lambda p: p.stat().st_mtime)[-REPORTS:]:
        try:
            report = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(report, dict) and "features" in report:
            found.append(report)
    return sorted(found, key=lambda report: int(report.get("at_ms", 0)))
