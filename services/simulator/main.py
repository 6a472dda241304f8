"""Wires the live simulator: the planted truth of the history, the shop's two addresses, the probes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from fastapi import FastAPI

from adapters.errors import Misconfigured
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from models.marketplace.config import Scenario
from models.marketplace.world import World
from services.simulator.api import add_routes
from services.simulator.control import Control, Rate
from services.simulator.live import live
from services.simulator.shop_client import ShopClient
from services.simulator.shoppers import Shoppers
from settings import Settings, load_settings

SERVICE: Final = "simulator"
LOOK_AGAIN_S: Final = 2.0
_log = structlog.get_logger()


class Simulator:
    """Waits until there is a simulated history, then goes on living it. `build` makes one, `run` runs it."""

    def __init__(self, settings: Settings, control: Control) -> None:
        self._settings, self.control = settings, control
        self._truth = settings.truth / "world.npz"
        self._client: ShopClient | None = None
        self._shoppers: Shoppers | None = None

    def change(self, scenario: Scenario) -> None:
        """From now on this scenario holds."""
        if self._shoppers is not None:
            self._shoppers.change(scenario)
        _log.info("scenario", **scenario.shares())

    def ready(self) -> dict[str, str]:
        """A shop that is closed does not make it unready: shoppers go on trying."""
        if self._settings.data is not None:
            return {}  # own data: there is nobody to simulate, and that is all right
        if self._client is None:
            return {"truth": f"{self._truth} is not there yet; pipelines.seed_history writes it"}
        return {}

    async def run(self, stop: asyncio.Event) -> None:
        while not (stop.is_set() or self._truth.exists()):
            await asyncio.wait([asyncio.create_task(stop.wait())], timeout=LOOK_AGAIN_S)
        if stop.is_set():
            return
        control = self.control
        world, recent = load_truth(self._truth)
        self._shoppers = shoppers = Shoppers(world, recent, control.scenario, seed=time.time_ns() % 2**32)
        self._client = ShopClient(self._settings)
        _log.info("simulation_begins", rate=str(control.rate), scenario=str(control.scenario))
        try:
            await live(shoppers, self._client, lambda: control.rate, stop)
        finally:
            await self._client.close()


def load_truth(path: Path) -> tuple[World, np.ndarray]:
    """The planted world and the items its shoppers may come back to. Raises Misconfigured on another version's file."""
    try:
        with np.load(path) as arrays:
            return World.from_arrays(arrays), arrays["recent"]
    except (KeyError, ValueError, OSError) as error:
        detail = f"{path} is not a world of this version ({error}); drop the data with `make reset`"
        raise Misconfigured(detail) from None


def build(settings: Settings) -> tuple[FastAPI, Simulator]:
    """Wire the process. Raises Misconfigured when the scenario is not one."""
    try:
        first = Scenario.parse(settings.sim_scenario)
    except ValueError as error:
        raise Misconfigured(f"MINIMART_SIM_SCENARIO = {settings.sim_scenario!r}: {error}") from None
    control = Control(settings.home / "scenario.json", first, Rate(settings.sim_live_rate))
    simulator, stop = Simulator(settings, control), asyncio.Event()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(simulator.run(stop))
        running.add_done_callback(_end_with)
        yield
        stop.set()
        await asyncio.gather(running, return_exceptions=True)

    app = create_app(SERVICE, title="Minimart simulator", ready=simulator.ready, lifespan=lifespan)
    add_routes(app, control, simulator.change)
    return app, simulator


def _end_with(running: asyncio.Task[None]) -> None:
    """A simulation that cannot go on ends the process, so that its manager sees it."""
    if not running.cancelled() and (error := running.exception()) is not None:
        print(error.detail if isinstance(error, Misconfigured) else repr(error), file=sys.stderr, flush=True)
        signal.raise_signal(signal.SIGTERM)


def main() -> None:
    settings = load_settings()
    setup_logging(SERVICE, settings.log_level)
    try:
        app, _ = build(settings)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(2) from None
    serve(app, settings.host, settings.port(SERVICE), SERVICE)
