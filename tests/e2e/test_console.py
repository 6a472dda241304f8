"""The console in real Chromium at phone and desktop width: on a platform in memory, and on a real one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright import sync_api
from rich.console import Console

from models.marketplace.config import Scenario
from pipelines.drills import drift
from pipelines.drills.scene import scene
from services.console.main import build
from settings import Settings
from tests.e2e.platform import Platform
from tests.unit.console_fakes import FakePlatform, drift_reports, rollout
from tests.unit.registry_fakes import FakeAges, event_log_metrics, registry_home

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on PATH: install the package chromium", allow_module_level=True)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
Open = Callable[[str], sync_api.Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@contextlib.contextmanager
def watched(browser: sync_api.Browser, width: str) -> Iterator[Open]:
    """Opens pages at one width. At the end any console error or failed script fails the test."""
    size = WIDTHS[width]
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    errors: list[str] = []

    def go(url: str) -> sync_api.Page:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield go
    context.close()
    assert errors == []


@pytest.fixture(params=list(WIDTHS))
def opened(request: pytest.FixtureRequest, browser: sync_api.Browser) -> Iterator[Open]:
    """At one width."""
    with watched(browser, request.param) as go:
        yield go


@pytest.fixture
def fake() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def address(fake: FakePlatform, tmp_path: Path) -> Iterator[str]:
    """The console on the platform in memory, on a port of its own."""
    now = int(time.time() * 1000)
    registry_home(tmp_path, now)
    drift_reports(tmp_path / "drift")
    fake.texts = {"event_log": event_log_metrics(now)}
    app = build(Settings(home=tmp_path, _env_file=None), fake.client(), newest=list, ages=FakeAges())  # type: ignore[call-arg]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    app.state.draining.set()
    server.should_exit = True
    thread.join(15)


def fits(page: sync_api.Page) -> None:
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth"), "scrolls sideways"


def says(page: sync_api.Page, panel: str, text: str) -> None:
    """Wait until the panel says it, by itself."""
    sync_api.expect(page.locator(panel)).to_contain_text(text, timeout=20_000)


def order(page: sync_api.Page, button: sync_api.Locator) -> str:
    """Press, say who and why, confirm; what the console answers."""
    button.click()
    form = page.locator("#ask[open] form")
    form.get_by_label("Who asks").fill("mara")
    form.get_by_label("Why").fill("looking at it")
    form.locator("button[type=submit]").click()
    said = page.locator("#ask[open] [role=status]")
    said.wait_for()
    text = said.inner_text()
    page.keyboard.press("Escape")
    return text


def test_a_roll_back_is_confirmed_and_the_page_follows_by_itself(
    address: str, opened: Open, fake: FakePlatform
) -> None:
    page = opened(address)
    assert "canary 5" in page.locator("#rollout").inner_text()
    fits(page)
    assert "Done" in order(page, page.get_by_role("button", name="Roll back"))
    says(page, "#rollout", "rolled back")
    assert fake.posted == [("controller/v1/rollout/rollback", {"reason": "looking at it", "actor": "mara"})]
    fake.told = rollout("healthy")
    says(page, "#rollout", "healthy")


def test_cancelling_changes_nothing_and_open_details_stay_open(
    address: str, opened: Open, fake: FakePlatform
) -> None:
    page = opened(address)
    page.locator(".history summary").click()
    page.get_by_role("button", name="Promote").click()
    page.locator("#ask[open]").get_by_role("button", name="Cancel").click()
    assert page.locator("#ask[open]").count() == 0
    assert fake.posted == []
    fake.told = rollout(reason="something new is said")
    says(page, "#rollout", "something new is said")
    assert page.locator(".history li").first.is_visible()
    fits(page)


def test_a_part_that_goes_away_is_seen_without_reloading(address: str, opened: Open, fake: FakePlatform) -> None:
    page = opened(address)
    assert page.locator(".node.down", has_text="recommender").count() == 0
    fake.away = {"recommender", "controller", "simulator"}
    page.locator(".node.down", has_text="recommender").wait_for()
    says(page, "#scenario", "does not answer")
    assert "does not answer" in page.locator("#rollout").inner_text()
    fits(page)


def test_features_and_contracts_are_read_and_searched(address: str, opened: Open) -> None:
    page = opened(address)
    page.get_by_role("link", name="Features").click()
    page.locator("#v-user_activity").wait_for()
    fits(page)
    assert page.locator(".spark svg").first.is_visible()
    page.get_by_label("Name or meaning").fill("card_amount")
    page.get_by_role("button", name="Find").click()
    page.locator("#v-card_payments").wait_for()
    assert page.locator("#v-user_activity").count() == 0
    fits(page)
    page.get_by_role("link", name="Contracts").click()
    page.locator("#c-shop\\.orders").wait_for()
    page.locator("details summary").first.click()
    assert "0.31% of the rows break it" in page.locator(".registry").inner_text()
    fits(page)


def test_on_a_real_platform_drift_is_started_and_an_answer_explained(platform: Platform, opened: Open) -> None:
    page = opened(platform.settings.url("console"))
    page.locator(".node.up", has_text="recommender").wait_for()
    button = page.locator("#scenario").get_by_role("button", name="Tastes change")
    assert "Done" in order(page, button)
    page.locator("#scenario li.on", has_text="Tastes change").wait_for()
    assert "Done" in order(page, page.get_by_role("button", name="Back to normal"))
    sync_api.expect(page.locator("#scenario li.on")).to_have_count(0, timeout=20_000)
    page.screenshot(path=str(platform.screenshots / "console.png"), full_page=True)
    recommender = platform.settings.url("recommender")
    asked = httpx.post(f"{recommender}/v1/recommendations", json={"user_id": "u00007"}, timeout=10)
    page.get_by_role("link", name="Decisions").click()
    page.get_by_label("Request id of an answer").fill(asked.json()["request_id"])
    page.get_by_role("button", name="Explain").click()
    page.locator(".item").first.wait_for()
    said = page.locator(".verdict").inner_text()
    assert re.search("made again", said)
    assert "different" not in said
    fits(page)
    page.screenshot(path=str(platform.screenshots / f"console-why-{(page.viewport_size or {})['width']}.png"))


@pytest.mark.skipif(not os.environ.get("MINIMART_E2E_DRILLS"), reason="takes five minutes: MINIMART_E2E_DRILLS=1")
@pytest.mark.timeout(1200)
def test_drift_started_in_the_console_is_watched_until_it_heals(
    platform: Platform, browser: sync_api.Browser
) -> None:
    """Nobody but the tester starts it, and both pages follow by themselves."""
    pace = drift.pace_of(short=True)
    with contextlib.ExitStack() as open_until:
        scenery = scene(platform.settings, "console", "drift started in the console", pace, Console(quiet=True))
        stage = open_until.enter_context(scenery)
        opened = {width: open_until.enter_context(watched(browser, width)) for width in WIDTHS}
        pages = {width: go(platform.settings.url("console")) for width, go in opened.items()}
        for page in pages.values():
            page.locator(".node.up", has_text="recommender").wait_for()
        stage.insist("hold", "what is healthy is learned first", model="recommender")
        stage.stay(pace.healthy_s)
        drift.mark_healthy(stage)
        began_ms = int(time.time() * 1000)
        button = pages["desktop"].locator("#scenario").get_by_role("button", name="Tastes change")
        assert "Done" in order(pages["desktop"], button)
        told = platform.http.get(f"{platform.settings.url('simulator')}/v1/scenario").json()["scenario"]
        stage.shoppers.scenario = Scenario(**told)  # the drill's own shoppers are shoppers like the simulator's
        for state, within_s in (("retraining", drift.DETECT_S), ("shadow", 180), ("canary_25", 90), ("promoted", 90)):
            assert stage.follow_until(state, within_s=within_s, since_ms=began_ms), f"{state}: never"
            for width, page in pages.items():
                says(page, "#rollout", state.replace("_", " "))
                fits(page)
                page.evaluate("window.scrollTo(0, 0)")  # the bar at the top belongs to the top of the picture
                page.screenshot(path=str(platform.screenshots / f"heals-{width}-{state}.png"), full_page=True)
