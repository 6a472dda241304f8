"""The seeded lake: the same bytes for the same seed, every row a valid event, and no second history over the first."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from adapters import event_lake
from adapters.catalogue import Catalogue, newest_states
from adapters.errors import Misconfigured
from feature_repo import events
from models.marketplace.world import World
from pipelines.history_lake import META, read_meta
from pipelines.seed_history import seed
from settings import Settings

AS_OF = 1_795_000_020_000


def settings_of(home: Path, **changes: int) -> Settings:
    size = {"sim_shoppers": 60, "sim_items": 120, "sim_days": 7} | changes
    return Settings(home=home, _env_file=None, **size)  # type: ignore[call-arg, arg-type]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = settings_of(tmp_path_factory.mktemp("home"))
    seed(settings, as_of_ms=AS_OF)
    return settings


def test_the_same_seed_gives_the_same_data_version(seeded: Settings, tmp_path: Path) -> None:
    again = seed(settings_of(tmp_path), as_of_ms=AS_OF)
    assert again == read_meta(seeded.lake)
    for file in sorted((tmp_path / "lake").rglob("*.parquet")):
        assert file.read_bytes() == (seeded.lake / file.relative_to(tmp_path / "lake")).read_bytes(), file.name
    assert seed(settings_of(tmp_path / "b", seed=8), as_of_ms=AS_OF)["data_version"] != again["data_version"]


def test_every_row_is_a_valid_event(seeded: Settings) -> None:
    ids: set[str] = set()
    for event in events.EVENTS:
        rows = event_lake.scan(seeded.lake, event.topic).to_pylist()
        for row in rows:
            plain = {k: v for k, v in row.items() if v is not None and not k.startswith("_")}
            assert msgspec.convert(plain, event).event_time <= AS_OF
        ids |= {row["event_id"] for row in rows}
    meta = read_meta(seeded.lake)
    assert meta is not None
    assert len(ids) == sum(meta["counts"].values()), "event ids are unique"
    assert meta["as_of_ms"] == AS_OF


def test_the_catalogue_comes_from_the_lake(seeded: Settings) -> None:
    states = newest_states(seeded.lake)
    assert len({s.item_id for s in states}) == len(states) > 90
    catalogue = Catalogue(seeded)
    assert not catalogue.ready
    catalogue.learn(states)
    assert catalogue.ready
    assert catalogue.snapshot() is catalogue.snapshot()
    first, version = states[0], catalogue.version
    catalogue.learn([first])
    assert catalogue.version == version, "nothing new"
    older = msgspec.structs.replace(first, event_time=first.event_time - 1, title="Old")
    newer = msgspec.structs.replace(first, event_time=first.event_time + 1, title="New")
    catalogue.learn([newer, older])
    found = catalogue.get(first.item_id)
    assert found is not None
    assert found.title == "New"
    assert len(catalogue.snapshot()) == len(states)


def test_the_truth_can_be_read_back(seeded: Settings) -> None:
    with np.load(seeded.truth / "world.npz") as arrays:
        world = World.from_arrays(arrays)
        assert arrays["recent"].shape[0] == len(world.taste)
    assert world.config.as_of_ms == AS_OF


def test_seeding_again_changes_nothing(seeded: Settings) -> None:
    before = (seeded.lake / META).stat().st_mtime_ns
    assert seed(seeded, as_of_ms=AS_OF + 60_000)["as_of_ms"] == AS_OF
    assert (seeded.lake / META).stat().st_mtime_ns == before


def test_another_history_is_not_overwritten(seeded: Settings) -> None:
    with pytest.raises(Misconfigured, match="make reset"):
        seed(settings_of(seeded.home, sim_items=130), as_of_ms=AS_OF)


def test_a_seeding_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    counts = seed(settings, as_of_ms=AS_OF)["counts"]
    (settings.lake / META).unlink()
    assert seed(settings, as_of_ms=AS_OF + 60_000)["as_of_ms"] == AS_OF + 60_000
    rows = event_lake.scan(settings.lake, "shop.items").num_rows
    assert rows == pytest.approx(counts["shop.items"], abs=3), "the first attempt's files are gone"
