"""Incident files and the monitor: told again changes nothing, resolved closes, nobody's write is lost."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from adapters.errors import NotFound
from adapters.incidents import Incidents, incident_id
from adapters.web import create_app
from services.monitor.api import add_routes
from services.monitor.textfiles import TextFiles
from services.monitor.vitals import Vitals

BEGAN, NOW = "2026-03-01T10:00:00.5Z", 1_772_359_300_000
BEGAN_MS = 1_772_359_200_500


def alert(status: str = "firing", *, name: str = "PartDown", fingerprint: str = "00ff", began: str = BEGAN) -> dict:
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "page", "part": "redis"},
        "annotations": {"summary": "redis does not answer", "runbook": "docs/runbooks/PartDown.md"},
        "startsAt": began,
        "endsAt": "2026-03-01T10:05:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
    }


def notification(*alerts: dict) -> dict:
    status = "firing" if any(a["status"] == "firing" for a in alerts) else "resolved"
    around = {"receiver": "incidents", "groupKey": "{}", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}}
    return {"version": "4", "status": status, "truncatedAlerts": 0, "alerts": list(alerts), **around}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "incidents"


@pytest.fixture
def asked() -> list[int]:
    return []


@pytest.fixture
async def monitor(folder: Path, asked: list[int]):
    def vitals() -> str:
        asked.append(1)
        return "| what | value |\n|---|---|\n| feeds a second | 3 |"

    app: FastAPI = create_app("monitor", title="monitor", ready=dict)
    add_routes(app, Incidents(folder), clock=lambda: NOW, vitals=vitals)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://monitor") as client:
        yield client


async def tell(monitor: httpx.AsyncClient, *alerts: dict) -> list[str]:
    answer = await monitor.post("/v1/alerts", json=notification(*alerts))
    assert answer.status_code == 200, answer.text
    return [one["outcome"] for one in answer.json()["incidents"]]


async def test_an_alert_opens_one_incident_however_often_it_is_told(monitor, folder, asked) -> None:
    assert await tell(monitor, alert()) == ["opened"]
    assert await tell(monitor, alert(), alert()) == ["known", "known"]
    (found,) = (await monitor.get("/v1/incidents", params={"state": "open"})).json()["incidents"]
    assert found["title"] == "PartDown: redis"
    whole = (await monitor.get(f"/v1/incidents/{found['id']}")).json()
    assert whole["opened_at_ms"] == BEGAN_MS
    assert whole["labels"]["part"] == "redis"
    assert [e["what"] for e in whole["timeline"]] == ["began: redis does not answer"]
    assert whole["evidence"][0]["title"] == "The platform when it began"
    assert len(asked) == 1
    text = (folder / f"{found['id']}.md").read_text()
    for part in ("# PartDown: redis", "Runbook:** docs/runbooks/PartDown.md", "| part | redis |", "feeds a second"):
        assert part in text


async def test_a_resolved_alert_closes_its_incident_once_and_a_new_episode_opens_another(monitor) -> None:
    await tell(monitor, alert())
    assert await tell(monitor, alert("resolved")) == ["closed"]
    assert await tell(monitor, alert("resolved")) == ["known"]
    assert await tell(monitor, alert()) == ["known"]  # overtaken by its own end
    assert await tell(monitor, alert(began="2026-03-01T11:00:00Z")) == ["opened"]
    states = [one["state"] for one in (await monitor.get("/v1/incidents")).json()["incidents"]]
    assert states == ["open", "closed"]
    closed = (await monitor.get("/v1/incidents", params={"state": "closed"})).json()["incidents"][0]
    page = await monitor.get(f"/v1/incidents/{closed['id']}/report")
    assert "closed after 4 min" in page.text
    assert "ended: the alert cleared" in page.text


async def test_an_alert_that_ended_while_the_monitor_was_away_is_kept(monitor) -> None:
    assert await tell(monitor, alert("resolved")) == ["closed"]


async def test_two_fingerprints_are_two_incidents(monitor) -> None:
    assert await tell(monitor, alert(), alert(fingerprint="aa", name="FeaturesStale")) == ["opened", "opened"]


@pytest.mark.parametrize(
    "broken",
    [
        {"version": "3"},
        {"alerts": [{"status": "firing"}]},
        {"alerts": [alert() | {"fingerprint": "../../etc/passwd"}]},
        {"alerts": [alert() | {"startsAt": "yesterday"}]},
    ],
)
async def test_what_is_no_notification_is_refused(monitor, folder, broken: dict) -> None:
    answer = await monitor.post("/v1/alerts", json=notification(alert()) | broken)
    assert answer.status_code == 422
    assert not folder.exists() or not list(folder.glob("*.json"))


async def test_an_unknown_incident_is_a_problem_document(monitor) -> None:
    answer = await monitor.get(f"/v1/incidents/{incident_id('PartDown', 'x', 0)}")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not found")
    assert (await monitor.get("/v1/incidents/..%2f..%2fpasswd")).status_code in (404, 422)


def test_an_incident_of_a_drill_has_timeline_evidence_picture_and_resolution(folder: Path) -> None:
    book = Incidents(folder)
    opened = book.open("null surge", kind="NullSurge", at_ms=1000, severity="page", summary="prices are null")
    book.note(opened.id, "the null share of price is 0.6", at_ms=3000, by="triage")
    book.note(opened.id, "the first null", at_ms=2000, by="triage")
    book.evidence(opened.id, "Null share", "| t | share |\n|---|---|\n| 1 | 0.6 |", picture="nulls.png")
    closed = book.close(opened.id, "the importer was rolled back", at_ms=9000, by="triage")
    assert [e.what for e in closed.timeline][1:3] == ["the first null", "the null share of price is 0.6"]
    text = (folder / f"{opened.id}.md").read_text()
    assert "![Null share](nulls.png)" in text
    assert text.endswith("## Resolution\n\nthe importer was rolled back\n")
    assert json.loads((folder / f"{opened.id}.json").read_text())["state"] == "closed"
    assert book.open("null surge", kind="NullSurge", at_ms=20_000).id != opened.id


def test_writers_at_the_same_time_lose_nothing(folder: Path) -> None:
    opened = Incidents(folder).open("trouble", kind="Trouble", at_ms=0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Incidents(folder).note(opened.id, f"note {n}", at_ms=n), range(40)))
    told = {e.what for e in Incidents(folder).get(opened.id).timeline}
    assert {f"note {n}" for n in range(40)} <= told
    assert not list(folder.glob(".new-*"))


def test_an_id_cannot_leave_the_folder(folder: Path) -> None:
    with pytest.raises(NotFound):
        Incidents(folder).get("../../etc/passwd")


def test_metrics_of_programs_that_end_are_shown_and_bad_files_left_out(tmp_path: Path) -> None:
    (tmp_path / "drift.prom").write_text('# TYPE minimart_drift_psi gauge\nminimart_drift_psi{feature="price"} 0.3\n')
    (tmp_path / "other.prom").write_text("# TYPE python_info gauge\npython_info 1\n")
    (tmp_path / "torn.prom").write_text("minimart_x{ 1 2 3 oh\n")
    (tmp_path / "twice.prom").write_text('# TYPE minimart_drift_psi gauge\nminimart_drift_psi{feature="x"} 1\n')
    families = {family.name: family for family in TextFiles(tmp_path).collect()}
    assert families["minimart_drift_psi"].samples[0].value == 0.3
    assert families["minimart_textfile_age_seconds"].samples[0].labels == {"file": "drift"}
    assert families["minimart_textfiles_bad"].samples[0].value == 3


def test_without_prometheus_there_are_no_vital_signs_and_no_error() -> None:
    vitals = Vitals("http://127.0.0.1:9", timeout_s=0.2)
    assert vitals() == ""
    vitals.close()
