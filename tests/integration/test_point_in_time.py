"""Point-in-time joins equal brute force over a lake with late, duplicate and clock-skewed events; no server needed."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import event_lake
from adapters.kafka import Record
from feature_repo import events, tiles
from feature_repo.plan import FeaturePlan
from pipelines.point_in_time import features_at, recent_items_at
from tests import brute_force
from tests.integration.feature_stack import DAY, HOUR, as_oracle, hard_stream

PLAN = FeaturePlan.load(Path(__file__).parents[1] / "plan.json")
T0 = 1_790_000_000_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of 6,000 records that arrived over two and a half days in one partition."""
    folder = tmp_path_factory.mktemp("lake")
    by_topic: dict[str, list[Record]] = defaultdict(list)
    for topic, key, payload, arrival in hard_stream(11, 6_000, T0, 60 * HOUR):
        by_topic[topic].append(Record(topic, 0, len(by_topic[topic]), arrival, key, payload))
    for topic, records in by_topic.items():
        table, _ = event_lake.to_table(topic, records)
        event_lake.write_part(folder, topic, 0, 0, len(records) - 1, T0, table)
    return folder


@pytest.fixture(scope="module")
def truth() -> dict[tuple[str, Any], list[dict[str, Any]]]:
    found: dict[tuple[str, Any], list[dict[str, Any]]] = defaultdict(list)
    for event in brute_force.accepted(as_oracle(hard_stream(11, 6_000, T0, 60 * HOUR))[0]):
        for prefix, key in {(p, k) for p, k, _, _ in brute_force.rows_of(event)}:
            found[prefix, key].append(event)
    return found


@pytest.mark.parametrize("view_name", list(brute_force.PREFIX))
@pytest.mark.parametrize("strictly", [False, True])
def test_every_feature_equals_brute_force(lake: Path, truth: dict[Any, Any], view_name: str, strictly: bool) -> None:
    view, rng = PLAN.view(view_name), random.Random(7)
    keys = rng.choices(sorted(k for p, k in truth if p == brute_force.PREFIX[view_name]), k=60)
    exact = [e["event_time"] for k in keys for e in truth[brute_force.PREFIX[view_name], k][:1]]
    at = np.array([rng.choice([T0 + rng.randint(0, 60 * HOUR), T0 + rng.randint(0, 12 * DAY), exact[i],
                               T0 // HOUR * HOUR + rng.randint(1, 60) * HOUR]) for i in range(len(keys))])
    columns = {name: np.array([k[i] for k in keys], dtype=object) for i, name in enumerate(view.join_keys)}
    found = features_at(lake, PLAN, view_name, columns, at, strictly_before=strictly)
    for row, key in enumerate(keys):
        now = int(at[row])
        seen = truth[brute_force.PREFIX[view_name], key]
        if strictly:
            seen = [e for e in seen if e["arrival"] < now and e["event_time"] < now]
        for name, expected in brute_force.features(view.features, key, seen, now).items():
            assert brute_force.same(found[name][row], expected), (name, key, now, found[name][row], expected)


def test_no_requests_and_unknown_keys(lake: Path) -> None:
    nothing = features_at(lake, PLAN, "item_activity", {"item_id": np.array([], dtype=object)}, np.array([], dtype=int))
    assert {len(v) for v in nothing.values()} == {0}
    view = PLAN.view("user_activity")
    found = features_at(lake, PLAN, "user_activity", {"user_id": np.array(["nobody"])}, np.array([T0]))
    for name, value in tiles.windows(view, None, T0).items():
        assert brute_force.same(found[name][0], value)


def test_recent_items_are_those_before_the_moment(lake: Path, truth: dict[Any, Any]) -> None:
    user = max((k for p, k in truth if p == "user"), key=lambda k: len(truth["user", k]))
    (found,) = recent_items_at(lake, PLAN, [user[0]], np.array([T0 + 90 * HOUR]), k=5)
    assert found == brute_force.feature("user_recent_items", user, truth["user", user], T0 + 90 * HOUR)[:5]


def test_an_empty_lake_gives_missing_values(tmp_path: Path) -> None:
    found = features_at(tmp_path, PLAN, "item_activity", {"item_id": np.array(["i1"])}, np.array([T0]))
    assert found["item_clicks_count_7d"].tolist() == [0.0]
    assert set(PLAN.topics) <= set(events.TOPICS)


def test_a_repeated_id_is_no_event_even_if_the_first_was_late(tmp_path: Path) -> None:
    def click(offset: int, happened: int, arrived: int) -> Record:
        event = events.ProductClicked(event_id="once", event_time=happened, user_id="u", item_id="i1", category="tea",
                                      price_cents=1)
        return Record("shop.clicks", 0, offset, arrived, "u", events.encode(event))

    records = [click(0, T0 - 6 * DAY, T0), click(1, T0 + HOUR, T0 + HOUR)]
    event_lake.write_part(tmp_path, "shop.clicks", 0, 0, 1, T0, event_lake.to_table("shop.clicks", records)[0])
    found = features_at(tmp_path, PLAN, "user_activity", {"user_id": np.array(["u"])}, np.array([T0 + HOUR + 1]),
                        only=["user_clicks_count_1h"])
    assert found["user_clicks_count_1h"].tolist() == [0.0]
