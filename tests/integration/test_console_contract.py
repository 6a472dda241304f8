"""The console's routes under fuzz: whatever is sent, the answer is an expected one or a problem document."""

from __future__ import annotations

from pathlib import Path

import schemathesis

from services.console.main import build
from settings import Settings
from tests.integration.test_http_contract import STREAMS, _fuzz
from tests.unit.console_fakes import FakePlatform


def test_generated_requests_get_expected_answers(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, console_hosts="testserver", _env_file=None)  # type: ignore[call-arg]
    app = build(settings, FakePlatform().client(), newest=list)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path not in STREAMS:
            _fuzz(operation)
