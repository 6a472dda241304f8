"""The folder a test lies in is its marker: tests/unit/... is `unit`, and so on."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = ("unit", "integration", "e2e", "model", "data", "contracts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if kind in KINDS:
            item.add_marker(kind)
