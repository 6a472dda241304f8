"""Wires the live simulator: the planted truth of the history, the shop's two addresses, the probes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from adapters.errors import Misconfigured
from adapters.telemetry import setup_logging
from adapters.web import side_server
from models.marketplace.config import Scenario
from models.marketplace.world import World
from services.simulator.live import live
from services.simulator.shop_client import ShopClient
from services.simulator.shoppers import Shoppers
from settings import Settings, load_settings

SERVICE: Final = "simulator"
LOOK_AGAIN_S: Final = 2.0
_log = structlog.get_logger()


class Simulator:
    """Waits until there is a simulated history, then goes on living it. `build` makes one, `run` runs it."""

    def __init__(self, settings: Settings, scenario: Scenario) -> None:
        self._settings, self._scenario = settings, scenario
        self._truth = settings.truth / "world.npz"
        self._client: ShopClient | None = None

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
        shoppers = Shoppers(*load_truth(self._truth), self._scenario, seed=time.time_ns() % 2**32)
        self._client = ShopClient(self._settings)
        _log.info("simulation_begins", feeds_per_second=self._settings.sim_live_rate, scenario=str(self._scenario))
        try:
            await live(shoppers, self._client, self._settings.sim_live_rate, stop)
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


def build(settings: Settings) -> Simulator:
    """Raises Misconfigured when the scenario is not one."""
    try:
        return Simulator(settings, Scenario.parse(settings.sim_scenario))
    except ValueError as error:
        raise Misconfigured(f"MINIMART_SIM_SCENARIO = {settings.sim_scenario!r}: {error}") from None


def main() -> None:
    settings = load_settings()
    setup_logging(SERVICE, settings.log_level)
    try:
        simulator = build(settings)
        probes = side_server(SERVICE, settings.port(SERVICE), simulator.ready, host=settings.host)
        asyncio.run(_until_told_to_stop(simulator))
        probes.close()
    except Misconfigured as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(2) from None


async def _until_told_to_stop(simulator: Simulator) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await simulator.run(stop)
