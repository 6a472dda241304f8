"""A walk that cannot be finished names the hop that is missing and what to look at, and ends with 1."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from adapters import event_lake
from feature_repo.events import ItemListed
from pipelines.stack.launch import free_ports
from pipelines.walk import walk
from settings import Settings
from tests.unit.recommender_world import listed

PLAN = Path(__file__).parents[1] / "plan.json"


async def walked(settings: Settings) -> tuple[int, str]:
    out = io.StringIO()
    code = await walk(settings, Console(file=out, width=200))
    return code, out.getvalue()


@pytest.fixture
def nothing_runs(tmp_path: Path) -> Settings:
    (port,) = free_ports(1)
    redis = f"redis://127.0.0.1:{port}/0"
    return Settings(_env_file=None, home=tmp_path, redis_url=redis, kafka_bootstrap="127.0.0.1:9")


def with_plan(home: Path) -> None:
    (home / "features").mkdir()
    (home / "features" / "plan.json").write_bytes(PLAN.read_bytes())


async def test_without_a_plan(nothing_runs: Settings) -> None:
    code, text = await walked(nothing_runs)
    assert code == 1
    assert "feature plan" in text


async def test_without_a_catalogue(nothing_runs: Settings) -> None:
    with_plan(nothing_runs.home)
    code, text = await walked(nothing_runs)
    assert code == 1
    assert "missing hop: catalogue" in text
    assert "make demo" in text


async def test_without_redis(nothing_runs: Settings) -> None:
    with_plan(nothing_runs.home)
    names = [name for name in ItemListed.__struct_fields__ if name != "type"]
    table = pa.table({name: [getattr(listed("i1"), name)] for name in names})
    event_lake.write_import(nothing_runs.lake, ItemListed.topic, table, 0)
    code, text = await walked(nothing_runs)
    assert code == 1
    assert "missing hop: redis" in text
    assert "make logs S=redis" in text
