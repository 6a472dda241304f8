"""The HTTP edge: decode, ask the controller, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from adapters.errors import BadInput
from models.rollout import events as e
from models.rollout.state import EVERYTHING
from services.controller.control import Controller

Line = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    reason: Line
    actor: Line


class ModelWish(Wish):
    model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")] = EVERYTHING


class Given(Wish):
    folder: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^/[^\x00]*$")]
    bypass: bool = False


class Accepted(BaseModel):
    accepted: bool
    state: str
    detail: str


def add_routes(app: FastAPI, controller: Controller, *, clock: Callable[[], int], bypass_allowed: bool) -> None:
    """Put the routes on the app."""

    async def ask(event: e.Command) -> dict[str, Any]:
        state = await asyncio.to_thread(controller.command, event)
        return {"accepted": True, "state": state.name, "detail": state.paused or state.reason}

    @app.get("/v1/rollout", response_model=dict[str, Any], summary="State, shares, evidence and history of the rollout")
    async def rollout() -> Response:
        return _json(await asyncio.to_thread(controller.describe))

    @app.get("/v1/versions", response_model=dict[str, Any], summary="Published versions, their gate and their role")
    async def versions() -> Response:
        return _json(await asyncio.to_thread(controller.versions))

    @app.post("/v1/rollout/hold", status_code=202, response_model=Accepted, summary="Let no rollout of a model go on")
    async def hold(body: ModelWish) -> dict[str, Any]:
        return await ask(e.HoldAsked(clock(), body.reason, body.actor, body.model))

    @app.post("/v1/rollout/resume", status_code=202, response_model=Accepted, summary="End a hold")
    async def resume(body: ModelWish) -> dict[str, Any]:
        return await ask(e.ResumeAsked(clock(), body.reason, body.actor, body.model))

    @app.post("/v1/rollout/promote", status_code=202, response_model=Accepted, summary="Promote the challenger now")
    async def promote(body: Wish) -> dict[str, Any]:
        return await ask(e.PromoteAsked(clock(), body.reason, body.actor))

    @app.post("/v1/rollout/rollback", status_code=202, response_model=Accepted,
              summary="Drop the challenger, or go back to the champion before")  # fmt: skip
    async def rollback(body: Wish) -> dict[str, Any]:
        return await ask(e.RollbackAsked(clock(), body.reason, body.actor))

    @app.post("/v1/rollout/retrain", status_code=202, response_model=Accepted, summary="Train a challenger now")
    async def retrain(body: Wish) -> dict[str, Any]:
        return await ask(e.RetrainAsked(clock(), body.reason, body.actor))

    @app.post("/v1/rollout/check", status_code=202, response_model=Accepted, summary="Check for drift now")
    async def check(body: Wish) -> dict[str, Any]:
        began = await asyncio.to_thread(controller.check)
        detail = "a drift check began" if began else "a drift check is running already"
        return {"accepted": True, "state": controller.state.name, "detail": detail}

    @app.post("/v1/challengers", status_code=202, response_model=Accepted, summary="Give a challenger to be gated")
    async def challengers(body: Given) -> dict[str, Any]:
        if body.bypass and not bypass_allowed:
            fix = "set MINIMART_ROLLOUT_GATE_BYPASS=true; never in production"
            raise BadInput(f"bypass: the gate cannot be bypassed here ({fix})", field="bypass")
        return await ask(e.ChallengerGiven(clock(), body.reason, body.actor, body.folder, body.bypass))


def _json(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
