"""Wires the controller: Redis, the pointers, the analytical store, the recommender, MLflow, and its children."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from fastapi import FastAPI

from adapters.analytics import open_store
from adapters.http_guard import uuid7
from adapters.incidents import Incidents
from adapters.kafka import KafkaPublisher
from adapters.registry_aliases import RegistryAliases
from adapters.rollout_state import RedisRolloutStore
from adapters.telemetry import setup_logging
from adapters.web import create_app, serve
from models.rollout.guardrails import GuardConfig
from models.rollout.state import Config
from services.controller.api import add_routes
from services.controller.board import Board
from services.controller.children import Children
from services.controller.control import Controller
from services.controller.evidence import Evidence
from services.controller.metrics import Metrics
from settings import ROOT, Settings, load_settings

NAME: Final = "controller"
LOOK_S: Final = 2.0


def build(settings: Settings) -> FastAPI:
    """Wire the process; nothing connects before the app's lifespan begins."""
    publisher = KafkaPublisher(settings.kafka, client_id=NAME)
    aliases = RegistryAliases(settings.mlflow)
    incidents = Incidents(settings.incidents)
    controller = Controller(
        uuid7(), RedisRolloutStore(settings.redis), Board(settings.published, settings.rollout, publisher, aliases),
        Evidence(open_store(settings, timeout_s=5.0)),
        Children(_training_python(), ROOT, settings.rollout, settings.drift_window),
        _loaded(settings.url("recommender")), config_of(settings), GuardConfig(alpha=settings.rollout_alpha),
        clock=now_ms, drift_every_s=settings.drift_every_s, contracts_every_s=settings.contracts_every_s,
        look_every_s=min(LOOK_S, settings.rollout_step_s / 5),
        metrics=Metrics(),
        call=lambda why: _call_a_person(incidents, why),
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        controller.start()
        yield
        controller.close()
        aliases.close()
        publisher.close()

    def notes() -> dict[str, str]:
        return {"controller": controller.away} if controller.away else {}

    app = create_app(NAME, title="Minimart controller of rollouts", ready=dict, notes=notes, lifespan=lifespan)
    add_routes(app, controller, clock=now_ms, bypass_allowed=settings.gate_bypass_allowed)
    return app


def config_of(settings: Settings) -> Config:
    """The rollout's timing."""
    return Config(
        step_s=settings.rollout_step_s, shadow_s=settings.rollout_shadow_s,
        least_requests=settings.rollout_least_requests, least_shadow=settings.rollout_least_shadow,
        timeout_s=settings.rollout_timeout_s, cooldown_s=settings.rollout_cooldown_s,
        most_retrains_per_day=settings.rollout_max_retrains_per_day,
        drift_confirmations=settings.drift_confirmations,
    )  # fmt: skip


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _loaded(recommender: str) -> Callable[[], Mapping[str, Any] | None]:
    client = httpx.Client(base_url=recommender, timeout=0.5, trust_env=False)

    def loaded() -> Mapping[str, Any] | None:
        try:
            answer = client.get("/v1/lineups")
            return dict(answer.json()) if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    return loaded


def _call_a_person(incidents: Incidents, why: str) -> None:
    incidents.open("Drift stays, and no more retraining is allowed", kind="rollout", at_ms=now_ms(), summary=why)


def _training_python() -> str:
    """The interpreter with the training packages; where there is no such environment, our own has them."""
    path = ROOT / ".venv" / "training" / "bin" / "python"
    return str(path) if path.exists() else sys.executable


def main() -> None:
    settings = load_settings()
    setup_logging(NAME, settings.log_level)
    serve(build(settings), settings.host, settings.port(NAME), NAME)
