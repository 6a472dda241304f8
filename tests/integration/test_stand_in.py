"""A part as a child of a drill: it has the drill's settings, comes back after a kill -9, and leaves nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import psutil
import pytest

from pipelines.drills.neighbours import Neighbours
from pipelines.drills.standin import StandIn
from pipelines.stack.launch import free_ports
from settings import Settings


def answers(settings: Settings) -> float | None:
    """The rate that the simulator says, None while it does not answer."""
    try:
        return float(httpx.get(f"{settings.url('simulator')}/v1/rate").json()["feeds_per_second"])
    except httpx.HTTPError:
        return None


def eventually(settings: Settings) -> float:
    for _ in range(300):
        if (rate := answers(settings)) is not None:
            return rate
        time.sleep(0.1)
    raise AssertionError("it does not come up")


def test_a_stand_in_starts_dies_comes_back_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    offset = port - Settings.model_fields["simulator_port"].default if port > 10_000 else 0
    settings = Settings(home=tmp_path, port_offset=max(0, offset) % 30_000, _env_file=None)  # type: ignore[call-arg]
    monkeypatch.setenv("MINIMART_HOME", str(tmp_path))
    monkeypatch.setenv("MINIMART_PORT_OFFSET", str(settings.port_offset))
    child = StandIn("simulator", settings, {"MINIMART_SIM_LIVE_RATE": "3.5"})
    child.start()
    try:
        assert eventually(settings) == 3.5, "the drill's settings, not the platform's"
        assert Neighbours(settings).set_rate(7.0, None)["feeds_per_second"] == 7.0
        dead = child.kill()
        assert answers(settings) is None
        child.start()
        assert eventually(settings) == 7.0, "what it was told is kept over the kill"
        again = StandIn("simulator", settings, {})
        again.start()  # the next drill, after this one was killed: it ends what was left first
        assert eventually(settings) == 7.0
        again.stop()
    finally:
        child.stop()
    assert answers(settings) is None
    left = [p for p in psutil.process_iter() if p.pid != os.getpid() and _home(p) == str(tmp_path)]
    assert left == []
    assert not psutil.pid_exists(dead) or psutil.Process(dead).status() == psutil.STATUS_ZOMBIE


def _home(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("STACK_HOME") if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
