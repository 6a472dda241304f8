"""The HTTP edge: what is wrong with the live marketplace, and how busy it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, RootModel

from models.marketplace.config import Scenario
from services.simulator.control import Control

Share = Annotated[float, Field(allow_inf_nan=False)]


class Rates(BaseModel):
    """Rates that are set; null is the usual one, absent stays."""

    model_config = ConfigDict(extra="forbid")
    feeds_per_second: Share | None = None
    searches_per_second: Share | None = None


class Shares(RootModel[dict[str, bool | Share]]):
    """Scenario switches by name; `reset: true` first turns all others off."""


def add_routes(app: FastAPI, control: Control, changed: Callable[[Scenario], None]) -> None:
    """Put the routes on the app; `changed` is told every new scenario."""

    @app.get("/v1/scenario", summary="What is wrong with the live marketplace, and what each switch means")
    async def scenario() -> dict[str, Any]:
        return control.told()

    @app.post("/v1/scenario", summary="Set switches (shares between 0 and 1); reset turns the others off")
    async def set_scenario(body: Shares) -> dict[str, Any]:
        shares = {name: float(share) for name, share in body.root.items() if name != "reset"}
        now_ms = time.time_ns() // 1_000_000
        changed(control.set_scenario(shares, reset=bool(body.root.get("reset")), now_ms=now_ms))
        return control.told()

    @app.get("/v1/rate", summary="How busy the live marketplace is")
    async def rate() -> dict[str, float]:
        return asdict(control.rate)

    @app.post("/v1/rate", summary="Set the rates")
    async def set_rate(body: Rates) -> dict[str, float]:
        return asdict(control.set_rate(body.model_dump(exclude_unset=True)))
