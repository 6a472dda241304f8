"""No training row knows its future: shuffle everything after a moment, and nothing made before it changes by a bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from adapters.errors import BadInput
from adapters.event_lake import scan, write_import
from feature_repo.events import OrderPlaced, ProductAddedToCart, ProductClicked, ProductsShown
from feature_repo.plan import FeaturePlan
from pipelines import build_cooccurrence, build_index, train_two_tower
from pipelines.apply_features import compile_plan
from pipelines.build_dataset import load_rows
from pipelines.candidates import Requests, Retrieval, grid, requests_in
from pipelines.history import CART, load_feeds, load_history
from pipelines.newest import Newest, cuts, judged, newest_rows
from pipelines.point_in_time import recent_items_at
from pipelines.seed_history import seed
from pipelines.stages import Context, Stage
from settings import Settings

SHUFFLED = (
    (ProductClicked, "item_id"), (ProductAddedToCart, "item_id"), (OrderPlaced, "lines"), (ProductsShown, "item_ids"),
)  # fmt: skip


def context_of(home: Path) -> Context:
    return Context(Settings(home=home, sim_shoppers=250, sim_items=200, sim_days=7, threads=1), lambda text: None)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Context:
    context = context_of(tmp_path_factory.mktemp("original"))
    seed(context.settings, as_of_ms=1_767_225_600_000)
    context.settings.features.mkdir(parents=True, exist_ok=True)
    compile_plan(context.settings.features)
    return context


def shuffle_after(context: Context, moment_ms: int, home: Path) -> Context:
    """A copy whose events from `moment_ms` on have their items shuffled among shoppers."""
    rng, other = np.random.default_rng(5), context_of(home)
    for topic_folder in context.settings.lake.iterdir():
        if topic_folder.is_dir() and topic_folder.name == "shop.items":
            write_import(other.settings.lake, "shop.items", scan(context.settings.lake, "shop.items"), 0)
    for event, column in SHUFFLED:
        table = scan(context.settings.lake, event.topic)
        late = np.flatnonzero(pc.greater_equal(table["event_time"], moment_ms).to_numpy())
        order = np.arange(table.num_rows)
        order[late] = rng.permutation(late)
        place = table.schema.get_field_index(column)
        moved = table.set_column(place, table.schema.field(column), table[column].take(pa.array(order)))
        write_import(other.settings.lake, event.topic, moved, 0)
    (other.settings.lake / "_meta.json").write_text((context.settings.lake / "_meta.json").read_text())
    other.settings.features.mkdir(parents=True, exist_ok=True)
    compile_plan(other.settings.features)
    return other


def models_of(context: Context) -> Stage:
    stage = context.stage("past")
    train_two_tower.make(context, stage)
    build_index.run(context, stage)
    build_cooccurrence.run(context, stage)
    return stage


def rows_before(context: Context, stage: Stage, moment_ms: int) -> list[tuple[list[str], bytes]]:
    """Candidate ids and feature bytes of the shoppers that are asked about at moments up to `moment_ms`."""
    moments = grid(context.history, stage.until_ms, stage.until_ms + stage.window_ms)
    moments = moments[moments <= moment_ms]
    ids = sorted(context.history.users.tolist())[:60]
    code = {name: i for i, name in enumerate(context.history.users.tolist())}
    user = np.array([code[name] for name in ids for _ in moments[::6]])
    at = np.tile(np.arange(len(moments))[::6], len(ids))
    asked = Requests(user, moments[at], at, moments, np.full(len(user), "phone", dtype=object))
    retrieval, rows = Retrieval(context, stage, asked), []
    for request in retrieval:
        found = retrieval.candidates(request)
        names, features = context.history.items[found.rows], retrieval.features(request, found)
        order = np.argsort(names)
        rows.append((names[order].tolist(), features[order].tobytes()))
    return rows


def test_shuffling_the_future_changes_no_row(original: Context, tmp_path: Path) -> None:
    stage = models_of(original)
    moment = stage.until_ms + stage.window_ms // 2
    other = shuffle_after(original, moment, tmp_path)
    assert (other.history.item != original.history.item).any()
    stage_of_other = models_of(other)
    for file in ("two_tower/embeddings.npy", "cooccurrence/neighbours.npz", "popularity/popularity.npz"):
        assert stage.path(file).read_bytes() == stage_of_other.path(file).read_bytes(), file
    assert rows_before(original, stage, moment) == rows_before(other, stage_of_other, moment)


def newest_of(context: Context, stage: Stage, folder: Path) -> Newest:
    """All that happened after `stage`, as a retraining sees it."""
    newest = Newest(context.settings, lambda text: None, context.history.as_of_ms, folder)
    newest.__dict__["champion"] = stage  # what would be read from the published pointer
    newest_rows(newest)
    return newest


def test_what_a_challenger_learns_from_knows_nothing_of_what_judges_it(original: Context, tmp_path: Path) -> None:
    stage = models_of(original)
    newest = newest_of(original, stage, tmp_path / "retrain")
    *_, older, newer = newest.rows_of(newest.stage("production"))
    parts = [load_rows(part) for part in (older, newer, judged(newest))]
    for (_, before), (_, after) in pairwise(parts):
        assert before.max() < after.min()
    begin = int(parts[-1][1].min())
    other = shuffle_after(original, begin, tmp_path / "other")
    again = newest_of(other, models_of(other), tmp_path / "again")
    learned = (one.rows_of(one.stage("production"))[1:] for one in (newest, again))
    for part, redone in zip(*learned, strict=True):
        rows, same = load_rows(part)[0], load_rows(redone)[0]
        assert rows.labels.tobytes() == same.labels.tobytes()
        assert rows.features.tobytes() == same.features.tobytes()
    assert load_rows(judged(again))[0].labels.tobytes() != parts[-1][0].labels.tobytes()


def test_outcomes_are_as_many_in_every_part_of_the_newest_window(original: Context, tmp_path: Path) -> None:
    newest = newest_of(original, models_of(original), tmp_path / "retrain")
    newer, judge = (load_rows(part)[0] for part in (newest.stage("production"), judged(newest)))
    rate, later = (float((rows.labels >= 1).sum()) / len(rows.groups) for rows in (newer, judge))
    assert rate == pytest.approx(later, rel=0.25), "what promises and what judges have had the same time for outcomes"


def test_the_newest_window_is_cut_by_what_happened_and_by_the_drift_windows() -> None:
    times = np.arange(0, 80_000, 10)  # 8,000 interactions
    assert cuts(times, 0, 80_000, 50_000) == [0, 39_991, 59_991, 80_001], "a quarter at most"
    assert cuts(times, 0, 80_000, 15_000) == [0, 50_011, 65_001, 80_001], "a window of the drift checks at most"
    assert cuts(times, 0, 80_000, 1_000) == [0, 59_991, 69_991, 80_001], "but enough to judge by"
    assert cuts(np.r_[times[:100], 5_000], 0, 6_000, 15_000) == [0, 501, 751, 6_001]
    with pytest.raises(BadInput, match="too few moments"):
        cuts(np.full(9, 70), 70, 70, 15_000)


def test_an_earlier_vocabulary_is_a_prefix(original: Context) -> None:
    history = original.history
    until = history.as_of_ms - original.window_ms
    earlier = load_history(original.settings.lake, until - 1)
    assert history.users[: len(earlier.users)].tolist() == earlier.users.tolist()
    assert history.items[: len(earlier.items)].tolist() == earlier.items.tolist()
    assert history.counts_at(until) == (len(earlier.users), len(earlier.items))


def test_recent_items_are_strictly_earlier(original: Context) -> None:
    history = original.history
    remembered = history.kind != CART
    chosen = np.random.default_rng(0).choice(np.flatnonzero(remembered), 50, replace=False)
    found = history.recent.before(history.user[chosen], history.time_ms[chosen])
    for row, place in zip(found, chosen, strict=True):
        mine = remembered & (history.user == history.user[place]) & (history.time_ms < history.time_ms[place])
        facts = sorted(zip(history.time_ms[mine], history.items[history.item[mine]], strict=True), reverse=True)
        assert history.items[row[row >= 0]].tolist() == [name for _, name in facts[:20]]


def test_requests_are_before_what_made_them(original: Context) -> None:
    history, until = original.history, original.history.as_of_ms + 1
    since = until - original.window_ms
    feeds = load_feeds(original.settings.lake, history, since, until)
    asked = requests_in(history, feeds, grid(history, since, until), until)
    pairs = set(zip(asked.user.tolist(), asked.moment.tolist(), strict=True))
    assert len(pairs) == len(asked.user)
    late = history.time_ms >= since
    moment = np.searchsorted(asked.moments, history.time_ms[late], side="right") - 1
    assert set(zip(history.user[late].tolist(), moment.tolist(), strict=True)) <= pairs
    assert (asked.time_ms == asked.moments[asked.moment]).all()


def test_recent_items_equal_the_point_in_time_feature(original: Context) -> None:
    history = original.history
    plan = FeaturePlan.load(original.settings.features / "plan.json")
    users = np.random.default_rng(1).integers(0, len(history.users), 30)
    at = np.full(30, history.as_of_ms - original.window_ms)
    found = history.recent.before(users, at)
    expected = recent_items_at(original.settings.lake, plan, history.users[users], at)
    assert [history.items[row[row >= 0]].tolist() for row in found] == expected
