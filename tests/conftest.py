"""The folder a test lies in is its marker: tests/unit/... is `unit`, and so on."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = ("unit", "data", "contracts", "model", "integration", "e2e", "compose")  # in the order in which they run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, and run what needs least first."""
    for item in items:
        kind = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if kind in KINDS:
            item.add_marker(kind)
    items.sort(key=lambda item: KINDS.index(kind) if (kind := item.path.relative_to(HERE).parts[0]) in KINDS else 0)
