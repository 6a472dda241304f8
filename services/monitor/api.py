"""The monitor's thin edge: Alertmanager tells, people and the console read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import structlog
from fastapi import FastAPI, Path, Query
from prometheus_client import Counter
from starlette.responses import PlainTextResponse

from adapters.incidents import ID_PATTERN, Incidents, report
from services.monitor.alerts import Notification, take

TOLD: Final = Counter("minimart_alerts_told_total", "Alerts that Alertmanager told, by what they did", ["outcome"])
for _outcome in ("opened", "known", "closed"):
    TOLD.labels(_outcome)
IncidentId = Annotated[str, Path(pattern=ID_PATTERN, max_length=100, description="id of an incident")]


def add_routes(app: FastAPI, incidents: Incidents, *, clock: Callable[[], int], vitals: Callable[[], str]) -> None:
    """Put the routes on the app; `clock()` gives ms since 1970, `vitals()` how the platform is, as Markdown."""
    one_at_a_time = asyncio.Lock()

    @app.post("/v1/alerts", summary="Alertmanager's webhook: alerts that began or ended")
    async def alerts(notification: Notification) -> dict[str, Any]:
        async with one_at_a_time:
            told = await asyncio.to_thread(take, notification, incidents, now_ms=clock(), vitals=vitals)
        for one in told:
            TOLD.labels(one.outcome).inc()
            if one.outcome != "known":
                structlog.get_logger().warning(f"incident_{one.outcome}", incident=one.incident.id)
        return {"incidents": [{"id": one.incident.id, "outcome": one.outcome} for one in told]}

    @app.get("/v1/incidents", summary="Incidents, newest first")
    async def listed(
        state: Annotated[Literal["open", "closed"] | None, Query(description="only these")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        found = await asyncio.to_thread(incidents.all, state)
        return {"total": len(found), "incidents": [one.brief() for one in found[:limit]]}

    @app.get("/v1/incidents/{incident_id}", summary="One incident with its timeline and evidence")
    async def one(incident_id: IncidentId) -> dict[str, Any]:
        return (await asyncio.to_thread(incidents.get, incident_id)).as_dict()

    @app.get(
        "/v1/incidents/{incident_id}/report", summary="The incident as Markdown", response_class=PlainTextResponse
    )
    async def page(incident_id: IncidentId) -> PlainTextResponse:
        return PlainTextResponse(report(await asyncio.to_thread(incidents.get, incident_id)))
