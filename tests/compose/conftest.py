"""Tests on a Docker engine, run where MINIMART_TEST_COMPOSE=1 asks for them (`make test-compose`): they take minutes
and kill containers. Elsewhere they are skipped, with the reason.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.errors import MinimartError
from pipelines.stack.compose import engine

ASKED = "MINIMART_TEST_COMPOSE"
TEST_SECONDS = 900


def reason_to_skip() -> str:
    """Why these tests cannot run here; empty where they can."""
    if os.environ.get(ASKED) != "1":
        return f"takes minutes and kills containers: make test-compose (or {ASKED}=1) runs it"
    try:
        engine.check()
    except MinimartError as error:
        return f"no Docker engine here: {error.detail}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if item.path.is_relative_to(here)]
    reason = reason_to_skip() if mine else ""
    for item in mine:
        item.add_marker(pytest.mark.timeout(TEST_SECONDS))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
