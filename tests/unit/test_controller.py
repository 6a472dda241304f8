"""The controller makes the world follow its state, goes on after a kill anywhere, and never acts without the lease."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from adapters.bundles import write_bundle
from adapters.errors import Conflict, Unavailable
from adapters.pointers import load_current, read_current, read_rollout, set_current
from adapters.web import create_app
from feature_repo.events import ROLLOUTS
from models.rollout import events as e
from models.rollout.state import Lineup, Ref, State
from services.controller.api import add_routes
from services.controller.children import Children, drift_event
from services.controller.control import Controller
from tests.unit.rollout_fakes import World

NAMES = ("two-tower", "preranker", "ranker")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


def lineup(world: World, version: str, *, gate: Any = "passed") -> Lineup:
    made = {n: write_bundle(world.published, n, version, {"f": version.encode()}, {}, gate=gate) for n in NAMES}
    return {name: Ref(bundle.version, bundle.manifest_sha256) for name, bundle in made.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    set_current(world.published, {n: write_bundle(world.published, n, "1", {"f": b"1"}, {}, gate="passed")
                                  for n in NAMES})  # fmt: skip
    return world


def shadowing(world: World, controller: Controller) -> None:
    """A challenger has passed the gate and gets shadow traffic."""
    controller.tick()
    controller.command(e.RetrainAsked(world.now_ms, "try", "ann"))
    assert world.children.running is not None
    world.children.job = e.JobEnded(
        world.now_ms, world.children.running.id, "passed", "12 checks passed", lineup(world, "2")
    )
    world.pass_s(controller, 1)
    assert controller.state.name == "shadow"


def come_to(world: World, controller: Controller, name: str) -> None:
    shadowing(world, controller)
    for _ in range(20):
        if controller.state.name == name:
            return
        world.pass_s(controller, 11)
    raise AssertionError(f"never came to {name}: {controller.state.name}")


def champion(world: World) -> str:
    return load_current(world.published)["ranker"].version


def test_a_challenger_goes_all_the_way_and_everyone_is_told(world: World) -> None:
    controller = world.new()
    come_to(world, controller, "promoted")
    assert champion(world) == "2"
    assert world.aliases.aliases["ranker", "champion"] == "2"
    assert world.aliases.aliases["ranker", "previous"] == "1"
    topic = [json.loads(record.value or b"") for record in world.sink.of(ROLLOUTS)]
    steps = "healthy retraining gated shadow canary_5 canary_25 canary_50 canary_100 promoted"
    assert [t["to"] for t in topic] == steps.split()
    assert all(sum(t["shares"].values()) == 100 for t in topic)
    audit = (world.home / "rollout" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in audit] == topic
    pointer = read_rollout(world.published)
    assert (pointer.challenger, pointer.canary_percent, pointer.state) == (None, 0, "promoted")
    assert pointer.previous is not None
    assert pointer.previous["ranker"].version == "1"


@pytest.mark.parametrize("name", ["shadow", "canary_5", "canary_25", "canary_50", "canary_100", "promoted"])
def test_another_controller_goes_on_where_the_killed_one_was(world: World, name: str) -> None:
    first = world.new("a")
    come_to(world, first, name)
    before, lines = first.state, len(world.sink.of(ROLLOUTS))
    world.store.expire()
    second = world.new("b")
    second.tick()
    assert (second.state.name, second.state.champion, second.state.challenger) == (
        name, before.champion, before.challenger)
    assert second.state.epoch > before.epoch
    assert len(world.sink.of(ROLLOUTS)) == lines, "nothing is told twice"
    for _ in range(20):
        world.pass_s(second, 11)
    assert champion(world) == "2"
    first.tick()
    assert not first.leads
    with pytest.raises(Unavailable, match="another controller leads"):
        first.command(e.RollbackAsked(world.now_ms, "r", "a"))


def test_a_kill_between_the_state_and_the_world_is_made_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.new("a")
    come_to(world, first, "canary_100")

    class Killed(BaseException):
        pass

    point = first._board.point

    def killed(state: State) -> None:
        if state.name == "promoted":
            raise Killed
        point(state)

    monkeypatch.setattr(first._board, "point", killed)
    with pytest.raises(Killed):
        world.pass_s(first, 11)
    assert champion(world) == "1", "decided, and not done yet"
    world.store.expire()
    second = world.new("b")
    second.tick()
    assert (champion(world), second.state.name) == ("2", "promoted")
    told = [json.loads(record.value or b"")["seq"] for record in world.sink.of(ROLLOUTS)]
    assert told == list(range(1, len(told) + 1))


def test_a_controller_that_slept_through_its_lease_can_change_nothing(world: World) -> None:
    sleeper, other = world.new("a"), world.new("b")
    come_to(world, sleeper, "canary_5")
    world.store.expire()
    other.tick()
    other.command(e.RollbackAsked(world.now_ms, "stop", "ann"))
    pointer = read_rollout(world.published)
    with pytest.raises(Conflict, match="older"):
        sleeper._board.point(sleeper.state)
    with pytest.raises(Conflict, match="token"):
        sleeper._keep(sleeper.state)
    sleeper.tick()
    assert not sleeper.leads
    assert read_rollout(world.published) == pointer
    assert pointer.challenger is None


def test_a_gross_breach_is_rolled_back_with_its_figures(world: World) -> None:
    controller = world.new()
    come_to(world, controller, "canary_5")
    world.evidence.gross = {"degraded": 0.9}
    world.pass_s(controller, 1)
    assert controller.state.name == "rolled_back"
    assert "90%" in controller.state.reason
    assert read_rollout(world.published).challenger is None
    assert champion(world) == "1"


def test_a_challenger_that_the_recommender_refuses_is_dropped(world: World) -> None:
    controller = world.new()
    shadowing(world, controller)
    world.loaded = {"rollout": controller.state.rollout, "refused": {"challenger": "Corrupt: digest"}}
    world.pass_s(controller, 1)
    assert (controller.state.name, "digest" in controller.state.reason) == ("rolled_back", True)


def test_mlflow_away_pauses_the_promotion_and_nothing_else(world: World) -> None:
    controller = world.new()
    world.aliases.down = True
    come_to(world, controller, "canary_100")
    for _ in range(30):
        world.pass_s(controller, 11)
    assert (controller.state.name, "registry" in controller.state.paused) == ("canary_100", True)
    world.aliases.down = False
    controller.tick()
    assert (controller.state.name, champion(world)) == ("promoted", "2")


def test_the_store_of_evidence_away_stops_steps_until_the_time_is_over(world: World) -> None:
    controller = world.new()
    come_to(world, controller, "canary_5")
    world.evidence.down = True
    world.pass_s(controller, 50)
    assert controller.state.name == "canary_5"
    world.pass_s(controller, 60)
    assert controller.state.name == "rolled_back"


def test_redis_away_means_standing_still(world: World) -> None:
    controller = world.new()
    come_to(world, controller, "canary_5")
    pointer = read_rollout(world.published)
    world.store.down = True
    world.pass_s(controller, 500)
    assert (controller.leads, read_rollout(world.published)) == (False, pointer)
    world.store.down = False
    world.now_ms -= 500_000
    controller.tick()
    assert (controller.leads, controller.state.name) == (True, "canary_5")


def test_redis_back_empty_loses_neither_the_state_nor_the_token(world: World) -> None:
    controller = world.new()
    come_to(world, controller, "canary_5")
    epoch = controller.state.epoch
    world.store.lease, world.store.state, world.store.token = None, None, 0
    world.new("b").tick()
    other = world.new("b")
    other.tick()
    assert (other.state.name, other.state.epoch > epoch) == ("canary_5", True)
    assert read_rollout(world.published).epoch == other.state.epoch


def test_drift_leads_to_a_training_and_a_person_is_called_when_it_may_not(world: World) -> None:
    controller = world.new()
    controller.tick()
    for attempt in range(4):
        for n in range(2):
            world.children.report = e.DriftReported(world.now_ms, f"d{attempt}{n}", "drift", ("psi",))
            controller.tick()
        assert world.children.running is not None
        world.children.job = e.JobEnded(world.now_ms, world.children.running.id, "refused", "not better")
        world.pass_s(controller, 60)
        controller.tick()
    for n in range(3):
        world.children.report = e.DriftReported(world.now_ms, f"last{n}", "drift", ("psi",))
        controller.tick()
    assert (controller.state.name, world.children.running) == ("drift_suspected", None)
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        ({"id": "1", "verdict": "drift", "kinds": {"concept": "drift"}}, "drift"),
        ({"id": "1", "verdict": "drift", "kinds": {"concept": "drift"}, "breakage": True}, "warn"),
        ({"id": "1", "verdict": "drift", "kinds": {"operations": "drift", "data": "healthy"}}, "warn"),
        ({"id": "1", "verdict": "healthy", "kinds": {}}, "healthy"),
        ({}, "insufficient_data"),
    ],
)
def test_breakage_is_nothing_that_training_could_heal(report: dict[str, Any], verdict: str) -> None:
    assert drift_event(report, 1).verdict == verdict


async def test_the_api_tells_and_takes_wishes(world: World) -> None:
    controller = world.new()
    shadowing(world, controller)
    app = create_app("controller", title="t", ready=dict)
    add_routes(app, controller, clock=lambda: world.now_ms, bypass_allowed=False)
    transport = httpx.ASGITransport(app)
    who = {"reason": "let me look", "actor": "ann"}
    async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
        told = (await client.get("/v1/rollout")).json()
        assert (told["state"], told["leader"], told["shares"]["champion"]) == ("shadow", True, 100)
        assert told["history"][0]["to"] == "shadow"
        held = await client.post("/v1/rollout/hold", json={**who, "model": "ranker"})
        assert held.status_code == 202
        assert (await client.get("/v1/rollout")).json()["holds"]["ranker"]["actor"] == "ann"
        unknown = await client.post("/v1/rollout/hold", json={**who, "model": "fraudster"})
        assert (unknown.status_code, "ranker" in unknown.json()["detail"]) == (409, True)
        refused = await client.post("/v1/rollout/retrain", json=who)
        assert (refused.status_code, "under way" in refused.json()["detail"]) == (409, True)
        bypass = await client.post("/v1/challengers", json={**who, "folder": "/f", "bypass": True})
        assert (bypass.status_code, "production" in bypass.json()["detail"]) == (422, True)
        back = await client.post("/v1/rollout/rollback", json=who)
        assert (back.status_code, back.json()["state"]) == (202, "rolled_back")
        versions = (await client.get("/v1/versions")).json()
        roles = {row["version"]: row["role"] for row in versions["published"]["ranker"]}
        assert roles == {"1": "champion", "2": None}
    current = read_current(world.published)
    assert current is not None
    assert current.bundles["ranker"].version == "1"


def test_a_drift_report_counts_before_its_pages_are_filed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        f"cd {tmp_path}\n"
        """echo '{"id": "d1", "verdict": "healthy"}' > part && mv part drift-check.json\n"""
        "while [ ! -e filed ]; do sleep 0.05; done\n"
    )
    python.chmod(0o755)
    children = Children(str(python), tmp_path, tmp_path, "1h")
    assert children.check_drift(report=True)
    found: list[e.DriftReported] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        found += [report] if (report := children.drift_reported(1)) is not None else []
    assert [report.id for report in found] == ["d1"]
    assert children.drift_reported(2) is None, "once"
    assert not children.check_drift(report=True), "its pages are still being filed"
    (tmp_path / "filed").touch()
    while not children.check_drift(report=False) and time.monotonic() < deadline:
        assert children.drift_reported(3) is None
    children.close()


def test_contracts_are_checked_while_all_is_well_and_not_during_a_rollout(world: World) -> None:
    world.contracts_every_s = 0
    controller = world.new()
    controller.tick()
    controller.tick()
    assert world.children.contracts == 2
    shadowing(world, controller)
    begun = world.children.contracts
    controller.tick()
    assert world.children.contracts == begun


def test_one_check_of_the_contracts_runs_at_a_time(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/said\nwhile [ ! -e {tmp_path}/enough ]; do sleep 0.05; done\n")
    python.chmod(0o755)
    children = Children(str(python), tmp_path, tmp_path, "1h")
    assert children.check_contracts()
    assert not children.check_contracts()
    (tmp_path / "enough").touch()
    deadline = time.monotonic() + 20
    while not children.check_contracts() and time.monotonic() < deadline:
        time.sleep(0.02)
    children.close()
    assert "-m pipelines.check_contracts --quiet" in (tmp_path / "said").read_text()
