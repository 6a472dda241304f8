"""What a dashboard is made of, and its form as Grafana reads it. Knows no query: those are in contents.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["stat", "timeseries", "table", "bargauge"]
Source = Literal["prometheus", "clickhouse"]

COLUMNS: Final = 24  # of Grafana's grid
UIDS: Final[dict[Source, dict[str, str]]] = {
    "prometheus": {"type": "prometheus", "uid": "prometheus"},
    "clickhouse": {"type": "grafana-clickhouse-datasource", "uid": "clickhouse"},
}
GREEN, AMBER, RED = "green", "orange", "red"


@dataclass(frozen=True)
class Panel:
    """One picture. `queries` are (legend, query): PromQL, or SQL with Grafana's macros where the source is ClickHouse.

    `limits` colour the value amber and red from these values on. `quiet` says why it may rightly have no data.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 7
    source: Source = "prometheus"
    about: str = ""
    limits: tuple[float, float] | None = None
    quiet: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A page; its file name is `uid`. `rows` are groups of panels with a heading."""

    uid: str
    title: str
    about: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, row after row."""
        return tuple(panel for _, row in self.rows for panel in row)


def render(dashboard: Dashboard) -> str:
    """The dashboard's JSON file."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["minimart"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": _links(),
        "annotations": {"list": [_alerts()]},
        "panels": _laid_out(dashboard),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _links() -> list[dict[str, Any]]:
    """To the other dashboards and to the alerts, within Grafana, so that no address has to be known."""
    return [
        {"title": "Minimart", "type": "dashboards", "tags": ["minimart"], "asDropdown": True, "keepTime": True},
        {"title": "Alert rules", "type": "link", "icon": "bolt", "url": "/alerting/list?dataSource=Prometheus"},
        {"title": "Firing alerts", "type": "link", "icon": "bolt", "url": "/alerting/groups?alertmanager=Alertmanager"},
    ]


def _alerts() -> dict[str, Any]:
    """A mark wherever an alert began to fire."""
    return {
        "name": "Alerts", "datasource": UIDS["prometheus"], "enable": True, "iconColor": RED,
        "expr": 'ALERTS{alertstate="firing"}', "titleFormat": "{{alertname}}", "step": "15s",
    }  # fmt: skip


def _laid_out(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Rows from top to bottom, panels from left to right, wrapped at the grid's width."""
    out: list[dict[str, Any]] = []
    y = 0
    for heading, row in dashboard.rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        out.append({"id": len(out) + 1, "type": "row", "title": heading, "gridPos": place, "panels": []})
        x, tallest, y = 0, 0, y + 1
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            out.append({"id": len(out) + 1, "gridPos": place, **_panel(panel)})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return out


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    if panel.limits:
        steps += [{"color": AMBER, "value": panel.limits[0]}, {"color": RED, "value": panel.limits[1]}]
    custom = {"fillOpacity": 8, "lineWidth": 1, "showPoints": "never"} if panel.kind == "timeseries" else {}
    if panel.kind == "timeseries" and panel.limits:
        custom |= {"thresholdsStyle": {"mode": "dashed"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": UIDS[panel.source],
        "targets": [_target(panel, number) for number in range(len(panel.queries))],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": _options(panel),
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    if panel.kind == "bargauge":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "gradient"}
    if panel.kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {"showHeader": True}


def _target(panel: Panel, number: int) -> dict[str, Any]:
    legend, query = panel.queries[number]
    common = {"refId": chr(ord("A") + number), "datasource": UIDS[panel.source]}
    if panel.source == "clickhouse":
        series = panel.kind == "timeseries"
        form = {"queryType": "timeseries" if series else "table", "format": 0 if series else 1}
        return common | {"editorType": "sql", "rawSql": query} | form
    instant = panel.kind in ("table", "bargauge", "stat")
    form = {"instant": instant, "range": not instant, "format": "table" if panel.kind == "table" else "time_series"}
    return common | {"expr": query, "legendFormat": legend or "__auto"} | form
