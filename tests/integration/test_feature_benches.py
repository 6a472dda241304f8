"""The benchmarks of features run, small: every rival gives equal values, and the README can show what they leave."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from adapters import provenance
from bench import feature_scale, feature_serving, feature_stream, materialize, numbers

QUICK = Namespace(quick=True, seed=7, items=1_000, clicks=20_000, moments=2_000, users=0, calls=0, feast_calls=0,
                  plan=Path(__file__).parents[1] / "plan.json")
WHENCE: dict[str, Any] = {"command": "c", "at": "2026-01-01", "commit": "abc", "seed": 7}


@pytest.mark.parametrize(("bench", "render"), [
    (feature_serving, numbers.serving), (feature_scale, numbers.scale), (materialize, numbers.materialize),
    (feature_stream, numbers.stream)])
def test_quick(bench: Any, render: Any, tmp_path: Path) -> None:
    found = bench.measure(tmp_path, QUICK)
    assert found["samples"]
    text = render(found | WHENCE | {"hardware": provenance.hardware()})
    assert text.startswith("**")
    assert "nan" not in text
