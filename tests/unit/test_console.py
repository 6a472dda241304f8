"""The console on a platform in memory: panels, sources that are away, orders, refusals, the look-up of a decision."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from services.console import actions, panels, words
from services.console.api import PANELS
from services.console.board import reports_in
from services.console.figures import Figures, quantile, stages
from services.console.main import build, links_of
from services.console.neighbours import Answer, Neighbours
from settings import Settings
from tests.unit.console_fakes import PARTS, FakePlatform, drift_reports, rollout

HTMX = {"hx-request": "true", "origin": "http://127.0.0.1"}
WHO = {"actor": "mara", "reason": "trying it"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


def console(tmp_path: Path, platform: FakePlatform, newest: Any = list) -> FastAPI:
    return build(Settings(home=tmp_path, _env_file=None), platform.client(), newest=newest)  # type: ignore[call-arg]


def browser(app: FastAPI, host: str = "127.0.0.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}")


async def test_the_page_shows_every_panel(tmp_path: Path) -> None:
    drift_reports(tmp_path / "drift")
    async with browser(console(tmp_path, FakePlatform())) as visitor:
        page = (await visitor.get("/")).text
    for part in (
        "canary 5", "<em>10</em> inferences/s", "Drift suspected", "ranker 3", "Tastes change", "DriftSeen",
        "Drift seen", "share of your clicks in this category", "Prometheus, over the last 1m", "undecided",
    ):  # fmt: skip
        assert part in page, part


@pytest.mark.parametrize("away", sorted(set(PARTS.values())))
async def test_each_part_may_be_away_and_its_panel_says_so(tmp_path: Path, away: str) -> None:
    async with browser(console(tmp_path, FakePlatform(away={away}))) as visitor:
        answer = await visitor.get("/")
    assert answer.status_code == 200
    if away != "prometheus":
        assert f"The {away} does not answer" in answer.text


async def test_with_everything_away_the_page_still_comes(tmp_path: Path) -> None:
    async with browser(console(tmp_path, FakePlatform(away=set(PARTS.values())))) as visitor:
        answer = await visitor.get("/")
        assert answer.status_code == 200
        assert "No rates: neither Prometheus nor the parts answer" in answer.text
        assert "No drift report yet" in answer.text
        assert (await visitor.get("/readyz")).status_code == 200


async def test_without_prometheus_rates_come_from_the_parts(tmp_path: Path) -> None:
    figures = Figures(neighbours(FakePlatform(prometheus=False)))
    _, first = await figures.now()
    assert "first look" in first
    rates, source = await figures.now()
    assert "Prometheus does not answer" in source
    assert rates["answers"]["champion",] == pytest.approx(18 * rates["answers"]["canary",])
    assert stages(rates["stages"])["rank"]["p50"] < stages(rates["stages"])["total"]["p50"]


def neighbours(platform: FakePlatform) -> Neighbours:
    port_of = {part: port for port, part in PARTS.items()}
    return Neighbours(lambda part: f"http://127.0.0.1:{port_of[part]}", platform.client())


async def test_an_order_goes_to_the_controller_with_who_and_why(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with browser(console(tmp_path, platform)) as visitor:
        asked = await visitor.get("/ask/rollback", headers=HTMX)
        assert "Takes under 5 seconds" in asked.text
        assert platform.posted == []
        done = await visitor.post("/act/rollback", data=WHO, headers=HTMX)
        assert "Done" in done.text
        assert "rolled back" in (await visitor.get("/panels/rollout")).text
    assert platform.posted == [("controller/v1/rollout/rollback", {"reason": "trying it", "actor": "mara"})]


@pytest.mark.parametrize("name", [*actions.ROLLOUT, *(f"scenario-{s}" for s in words.SCENARIOS), "scenario-normal"])
async def test_every_button_has_its_question(tmp_path: Path, name: str) -> None:
    async with browser(console(tmp_path, FakePlatform())) as visitor:
        asked = await visitor.get(f"/ask/{name}", headers=HTMX)
    assert asked.status_code == 200
    assert f'hx-post="/act/{name}"' in asked.text


async def test_a_refusal_of_the_controller_is_shown(tmp_path: Path) -> None:
    platform = FakePlatform(refuse="there is no challenger to promote")
    async with browser(console(tmp_path, platform)) as visitor:
        done = await visitor.post("/act/promote", data=WHO, headers=HTMX)
    assert "Refused: there is no challenger to promote" in done.text


async def test_a_scenario_is_started_and_ended(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with browser(console(tmp_path, platform)) as visitor:
        done = await visitor.post("/act/scenario-taste_shift", data=WHO, headers=HTMX)
        assert "Done" in done.text
        assert platform.shares["taste_shift"] == words.SHARE
        assert "50 %" in (await visitor.get("/panels/scenario")).text
        await visitor.post("/act/scenario-normal", data=WHO, headers=HTMX)
    assert not any(platform.shares.values())


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ({}, "127.0.0.1"),  # not from our page: another site cannot send htmx's header
        (HTMX | {"origin": "http://evil.example"}, "127.0.0.1"),
        (HTMX | {"origin": "null"}, "127.0.0.1"),
        (HTMX | {"sec-fetch-site": "cross-site"}, "127.0.0.1"),
        (HTMX | {"origin": "http://rebound.example"}, "rebound.example"),  # a foreign name that points here
    ],
)
async def test_orders_from_elsewhere_are_refused(tmp_path: Path, headers: dict[str, str], host: str) -> None:
    platform = FakePlatform()
    async with browser(console(tmp_path, platform), host) as visitor:
        answer = await visitor.post("/act/rollback", data=WHO, headers=headers)
    assert answer.status_code == 403
    assert platform.posted == []


async def test_orders_need_who_and_why_and_must_exist(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with browser(console(tmp_path, platform)) as visitor:
        assert (await visitor.post("/act/rollback", data={"actor": "mara"}, headers=HTMX)).status_code == 422
        assert (await visitor.post("/act/explode", data=WHO, headers=HTMX)).status_code == 404
        assert (await visitor.get("/act/rollback")).status_code == 405
        assert (await visitor.get("/panels/nothing")).status_code == 404
    assert platform.posted == []


async def test_pages_keep_to_themselves_and_escape_what_they_are_told(tmp_path: Path) -> None:
    platform = FakePlatform(told=rollout(reason="<script>alert(1)</script>"))
    async with browser(console(tmp_path, platform)) as visitor:
        page = await visitor.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "<script>alert" not in page.text
    assert " style=" not in page.text


async def test_a_decision_is_looked_up_with_its_why(tmp_path: Path) -> None:
    check = {"name": "ranker's scores", "outcome": "same", "compared": 200, "detail": "byte for byte"}
    feature = {"name": "two_tower_score", "words": "closeness to your taste", "value": 0.4, "value_words": "0.4",
               "contribution": -0.2}  # fmt: skip
    item = {"item_id": "i1", "title": "A kettle", "position": 1, "words": ["Shown at place 1 of 20."],
            "sources": [{"name": "trending", "title": "Trending", "words": ""}], "features": [feature],
            "places": [{"stage": "rank", "place": 4, "among": 200}]}  # fmt: skip
    why = {"outcome": "same", "says": "made again, the same", "checks": [check], "answered_by": "The champion.",
           "models": [{"name": "ranker", "version": "3"}], "items": [item], "dropped": []}  # fmt: skip
    record = {"request_id": "d-1", "user_id": "u7", "k": 20, "now_ms": 1, "timings_ms": {"total": 12.0}, "degraded": []}
    platform = FakePlatform(decisions={"d-1": {**record, "why": why}, "d-2": record})
    newest = [{"request_id": "d-1", "user_id": "u7", "arm": "", "ranker_version": "3", "ms": 12.0, "event_ms": "1000"}]
    async with browser(console(tmp_path, platform, lambda: newest)) as visitor:
        page = (await visitor.get("/decisions?id=d-1")).text
        for part in ("made again, the same", "A kettle", "byte for byte", "closeness to your taste", "-0.200", "d-1"):
            assert part in page, part
        assert "20 products for u7" in (await visitor.get("/decisions?id=d-2")).text
        assert "no decision of that id" in (await visitor.get("/decisions?id=nowhere")).text
        assert (await visitor.get("/decisions?id=../../metrics")).status_code == 404


async def test_an_incidents_report_is_read_where_it_is(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with browser(console(tmp_path, platform)) as visitor:
        link = re.search(r'href="(/incidents/[^"]+)"', (await visitor.get("/")).text)
        assert link
        assert "13:00:00 tastes moved" in (await visitor.get(link[1])).text
        other = link[1].replace("00000000", "ffffffff")
        assert (await visitor.get(other)).status_code == 404
        platform.away = {"monitor"}
        assert "The monitor does not answer" in (await visitor.get(other)).text


def test_quantiles_are_prometheus_own() -> None:
    buckets = {0.01: 50.0, 0.1: 90.0, float("inf"): 100.0}
    assert quantile(0.5, buckets) == pytest.approx(0.01)
    assert quantile(0.7, buckets) == pytest.approx(0.055)
    assert quantile(0.99, buckets) == pytest.approx(0.1)
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {float("inf"): 0.0}) is None


def test_the_heat_map_puts_what_moved_most_first_and_survives_bad_files(tmp_path: Path) -> None:
    drift_reports(tmp_path, windows=20)
    (tmp_path / "torn.json").write_text("{")
    (tmp_path / "latest.json").write_text(json.dumps({"features": []}))
    drawn = panels.heat(reports_in(tmp_path))
    assert drawn["rows"][0]["name"] == "category_affinity_24h"
    assert drawn["rows"][0]["cells"][-1]["heat"] == "3"
    assert len(drawn["windows"]) <= 16
    assert {c["heat"] for row in drawn["rows"] if row["name"] == "weekday" for c in row["cells"]} == {"none"}
    assert panels.heat([])["away"]


@pytest.mark.parametrize("state", [*words.STATES, "something_new"])
def test_every_state_of_a_rollout_is_drawn(state: str) -> None:
    drawn = panels.rollout_of(Answer(rollout(state)))
    assert drawn["means"]
    assert sum(step["here"] for step in drawn["steps"]) <= 1


def test_shares_fill_the_bar_in_order() -> None:
    assert panels.bars({"champion": 90, "control": 5, "canary": 5}) == [
        ("champion", 0, 90), ("control", 90, 5), ("canary", 95, 5)
    ]  # fmt: skip


def test_links_lead_where_the_browser_is(tmp_path: Path) -> None:
    found = dict(links_of(Settings(home=tmp_path, port_offset=100, _env_file=None), "my.host"))  # type: ignore[call-arg]
    assert found["MLflow"] == "http://my.host:8186/"


async def test_everybody_who_looks_shares_one_look_at_the_platform(tmp_path: Path) -> None:
    platform = FakePlatform()
    board = console(tmp_path, platform).state.console.board
    assert set(PANELS) == set(await board.panels())
    asked = platform.asked
    await board.panels()
    assert platform.asked == asked
    board.stale()
    await board.panels()
    assert platform.asked > asked
