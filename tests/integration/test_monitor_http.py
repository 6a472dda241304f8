"""The monitor's routes under generated requests: the answer is expected, or a 4xx problem document."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI

from adapters.incidents import Incidents
from adapters.web import create_app
from services.monitor.api import add_routes
from tests.integration.test_http_contract import _fuzz


@pytest.fixture
def monitor(tmp_path: Path) -> FastAPI:
    app = create_app("monitor", title="Minimart monitor", ready=dict)
    add_routes(app, Incidents(tmp_path), clock=lambda: 1_772_359_300_000, vitals=lambda: "")
    return app


def test_generated_requests_get_expected_answers(monitor: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", monitor)
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.startswith("/v1"):
            _fuzz(operation)
