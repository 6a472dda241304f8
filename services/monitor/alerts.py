"""From Alertmanager's notifications to incidents. Knows neither HTTP nor files: it gets what was told, and a book.

An alert that fires opens the incident of its fingerprint, told again it changes nothing, resolved it closes it. One
that is resolved without ever having been told as firing (the monitor was away) leaves a closed incident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, Field

from adapters.incidents import Incident

Outcome = Literal["opened", "known", "closed"]
# An alert that has not ended yet carries the year 1.
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class Alert(BaseModel):
    """One alert of a notification; the fields that are used, of those that Alertmanager sends."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)
    startsAt: AwareDatetime = Field(ge=EARLIEST, le=LATEST)
    endsAt: AwareDatetime | None = None
    fingerprint: str = Field(pattern=r"^[0-9a-f]{1,64}$")
    generatorURL: str = Field("", max_length=4000)


class Notification(BaseModel):
    """Alertmanager's webhook payload, version 4."""

    version: Literal["4"]
    status: Literal["firing", "resolved"]
    receiver: str = Field("", max_length=200)
    groupKey: str = Field("", max_length=4000)
    truncatedAlerts: int = Field(0, ge=0, le=1_000_000)
    alerts: list[Alert] = Field(max_length=1000)


class Book(Protocol):
    """Where incidents are kept: adapters/incidents.py."""

    def open(
        self, title: str, *, kind: str, at_ms: int, severity: str, labels: Mapping[str, str], summary: str, look: str,
        runbook: str, key: str,
    ) -> Incident: ...  # fmt: skip

    def evidence(self, name: str, title: str, text: str) -> Incident: ...
    def close(self, name: str, resolution: str, *, at_ms: int) -> Incident: ...
    def find_open(self, key: str) -> Incident | None: ...


@dataclass(frozen=True)
class Told:
    """What one alert did: the incident and whether it was opened, known already, or closed."""

    incident: Incident
    outcome: Outcome


def take(notification: Notification, book: Book, *, now_ms: int, vitals: Callable[[], str]) -> list[Told]:
    """Each alert of the notification in turn. `vitals()` is asked once if something opens: how the platform is now."""
    seen: list[str] = []

    def once() -> str:
        if not seen:
            seen.append(vitals())
        return seen[0]

    return [_take(alert, book, now_ms=now_ms, vitals=once) for alert in notification.alerts]


def _take(alert: Alert, book: Book, *, now_ms: int, vitals: Callable[[], str]) -> Told:
    before = book.find_open(alert.fingerprint)
    if alert.status == "firing":
        if before is not None:
            return Told(before, "known")
        opened = _open(alert, book)
        if opened.state == "closed":
            return Told(opened, "known")  # an old notification that was overtaken by its end
        if seen := vitals():
            opened = book.evidence(opened.id, "The platform when it began", seen)
        return Told(opened, "opened")
    incident = before or _open(alert, book)
    if incident.state == "closed":
        return Told(incident, "known")
    ended_ms = _ms(alert.endsAt) if alert.endsAt and EARLIEST < alert.endsAt < LATEST else now_ms
    return Told(book.close(incident.id, "the alert cleared", at_ms=ended_ms), "closed")


def _open(alert: Alert, book: Book) -> Incident:
    name = alert.labels.get("alertname", "alert")
    subject = next((alert.labels[key] for key in ("part", "service", "reason", "model") if alert.labels.get(key)), "")
    return book.open(
        f"{name}: {subject}" if subject else name,
        kind=name, at_ms=_ms(alert.startsAt), severity=alert.labels.get("severity", "warn"), labels=alert.labels,
        summary=alert.annotations.get("summary", ""), look=alert.annotations.get("look", ""),
        runbook=alert.annotations.get("runbook", ""), key=alert.fingerprint,
    )  # fmt: skip


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
