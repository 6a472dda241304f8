"""A marketplace of any size for measuring the funnel: models, catalogue and features in the forms that serving reads.

Items lie in clusters with Zipf's popularity, shoppers near a cluster of their own. Everything is made, nothing learned,
so a million items take minutes; what it costs to answer is real: the two-tower's network, trees of the usual size that
were grown on rows like those of the funnel (on others all rows would take the same few ways through them, which is
quicker), packed tiles in Redis. Says nothing about quality.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from adapters import event_lake
from adapters.bundles import Bundle, write_bundle
from adapters.feature_state import FeatureState
from adapters.pointers import set_current
from bench.clusters import clustered
from feature_repo import tiles
from feature_repo.events import ItemListed
from feature_repo.layout import Layout, layout_of
from feature_repo.plan import FeaturePlan
from feature_repo.windows import DAY_MS, HOUR_MS
from models import onnx_export, ranker
from models.ann_index import AnnConfig, AnnIndex
from models.cooccurrence import Cooccurrence, CooccurrenceConfig
from models.ranking_features import DEVICES, FEATURES, SOURCES, RankingInputs, assemble
from models.retrieval import SIZES
from models.two_tower import Content, TwoTower, TwoTowerConfig

Say = Callable[[str], None]
VERSION: Final = "1"
CATEGORIES: Final = 32
_NEIGHBOURS: Final = 20
_TEMPLATES: Final = 256  # different histories; each shopper and item has one of them
_AT_ONCE: Final = 5000


@dataclass(frozen=True)
class Scale:
    """How big the marketplace is. `touched` items have windows of the last days, the others nobody looked at."""

    items: int = 1_000_000
    users: int = 100_000
    touched: int = 50_000
    trees: int = 300
    leaves: int = 63
    students: bool = True
    """Whether networks serve that learned from the trees, as they do where they keep the trees' quality."""
    dim: int = 64
    seed: int = 7

    def __post_init__(self) -> None:
        if min(self.items, self.users, self.touched, self.trees, self.leaves) < 1 or self.touched > self.items:
            raise ValueError(f"sizes must be at least 1 and touched at most items: {self}")

    @property
    def clusters(self) -> int:
        return max(8, int(self.items**0.5))


@dataclass(frozen=True)
class World:
    """What was made. `build_s`: seconds that each part took."""

    home: Path
    scale: Scale
    embeddings: NDArray[np.float32]
    plan: FeaturePlan
    build_s: dict[str, float]

    @property
    def users(self) -> list[str]:
        return [f"u{i}" for i in range(self.scale.users)]


def build(home: Path, scale: Scale, say: Say = lambda _: None, *, threads: int = 2) -> World:
    """Make everything under `home` but the online store's content, which `fill` writes into a running Redis."""
    from pipelines.apply_features import compile_plan  # brings Feast, which only building needs

    torch.manual_seed(scale.seed)
    took: dict[str, float] = {}
    begun = time.perf_counter()

    def done(part: str) -> None:
        nonlocal begun
        took[part] = round(time.perf_counter() - begun, 2)
        say(f"{part} ({took[part]:.0f} s)")
        begun = time.perf_counter()

    plan = compile_plan(home / "features")
    scratch = home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    ids = [f"i{i}" for i in range(scale.items)]
    files: dict[str, dict[str, bytes | Path]] = {"two-tower": {}}
    vectors, files["two-tower"] = _two_tower(scale, ids, scratch)
    done("two-tower")
    AnnIndex.build(vectors, AnnConfig(), threads=threads, seed=scale.seed).save(scratch / "items.faiss")
    files["index"] = {"items.faiss": scratch / "items.faiss", "items.txt": _text(ids)}
    done("index")
    files |= _neighbours(scale, ids, scratch)
    done("co-occurrence and popularity")
    files |= _rankers(plan, scale, threads)
    done("rankers")
    bundles = {name: _bundle(home, name, content) for name, content in files.items()}
    set_current(home / "published", bundles)
    event_lake.write_import(home / "lake", ItemListed.topic, _catalogue(scale, ids), 0)
    done("bundles and catalogue")
    return World(home, scale, vectors, plan, took)


def fill(world: World, redis_url: str, say: Say = lambda _: None) -> None:
    """Write every shopper's and every touched item's tiles into Redis."""
    state, now_ms = FeatureState(redis_url, world.plan, timeout_s=60.0), _now_ms()
    rng = np.random.default_rng(world.scale.seed)
    written = 0
    batch: dict[tuple[str, tuple[str, ...]], bytes] = {}
    for view, key, packed in _tiles(world, rng, now_ms):
        batch[view, key] = packed
        if len(batch) == _AT_ONCE:
            state.put(batch, now_ms)
            written += len(batch)
            batch.clear()
            if written % 100_000 == 0:
                say(f"{written:,} packed tiles in Redis")
    state.put(batch, now_ms)
    state.close()
    say(f"{written + len(batch):,} packed tiles in Redis")


def _tiles(world: World, rng: np.random.Generator, now_ms: int) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
    scale = world.scale
    by_view = _histories(world.plan, scale, now_ms)
    for i, user in enumerate(world.users):
        yield "user_activity", (user,), by_view["user_activity"][i % _TEMPLATES]
        for category in rng.choice(CATEGORIES, 4, replace=False):
            yield "user_category_activity", (user, f"c{category}"), by_view["user_category_activity"][i % _TEMPLATES]
    for i in range(scale.touched):
        yield "item_activity", (f"i{i}",), by_view["item_activity"][i % _TEMPLATES]


def _histories(plan: FeaturePlan, scale: Scale, now_ms: int) -> dict[str, list[bytes]]:
    """View -> packed tiles of _TEMPLATES keys."""
    rng = np.random.default_rng(scale.seed + 4)
    fewest_most = {"user_activity": (5, 60), "user_category_activity": (2, 20), "item_activity": (2, 80)}
    return {
        view: [
            _history(layout_of(plan.view(view)), rng, now_ms, scale.items, events)
            for events in rng.integers(*ends, _TEMPLATES)
        ]
        for view, ends in fewest_most.items()
    }


def ranking_rows(plan: FeaturePlan, scale: Scale, requests: int, each: int, seed: int) -> NDArray[np.float32]:
    """float32 [requests, each, FEATURES]: rows as the funnel makes them of this marketplace."""
    rng, now_ms = np.random.default_rng(seed), _now_ms()
    columns = {
        view: tiles.columns(plan.view(view), [*packed, None], now_ms)  # the last: a key that nobody touched
        for view, packed in _histories(plan, scale, now_ms).items()
    }
    return np.stack([_rows_of_one(columns, rng, scale, each) for _ in range(requests)])


def _rows_of_one(
    columns: dict[str, dict[str, NDArray[Any]]], rng: np.random.Generator, scale: Scale, n: int
) -> NDArray[np.float32]:
    """A request's rows: a third of the items touched, tastes in an eighth of the categories, a pool of all sources."""

    def some(view: str, share: float) -> dict[str, NDArray[Any]]:
        at = np.where(rng.random(n) < share, rng.integers(0, _TEMPLATES, n), _TEMPLATES)
        return {name: column[at] for name, column in columns[view].items() if column.dtype != object}

    def among(size: int) -> NDArray[np.float64]:
        rank = np.full(n, np.nan)
        places = rng.permutation(n)[: min(size, n)]
        rank[places] = np.arange(1.0, len(places) + 1)
        return rank

    user, categories, voted = rng.integers(0, _TEMPLATES), rng.integers(0, CATEGORIES, n), rng.random(n) < 0.3
    retrieval = {f"{source}_rank": among(SIZES[source]) for source in SOURCES} | {
        "two_tower_score": rng.normal(0.4, 0.2, n), "popularity_score": 1.0 / rng.integers(1, scale.items, n) ** 0.8,
        "cooccurrence_score": voted * rng.random(n), "cooccurrence_steady_score": voted * rng.random(n),
    }  # fmt: skip
    items = some("item_activity", 1 / 3) | {
        "price_cents": rng.integers(200, 20_000, n), "age_hours": rng.random(n) * 300 * 24,
    }  # fmt: skip
    return assemble(RankingInputs(
        n=n, user={k: c[user] for k, c in columns["user_activity"].items() if c.dtype != object},
        items=items, user_category=some("user_category_activity", 1 / 8), retrieval=retrieval, category=categories,
        item_ids=rng.integers(0, scale.items, n), recent_categories=tuple(rng.integers(0, CATEGORIES, 20).tolist()),
        recent_items=tuple(rng.integers(0, scale.items, 20).tolist()), hour=24 * rng.random(),
        weekday=float(rng.integers(7)), device=DEVICES[rng.integers(len(DEVICES))],
    ))  # fmt: skip


def _history(layout: Layout, rng: np.random.Generator, now_ms: int, items: int, events: int) -> bytes:
    """Packed tiles of a key that saw `events` of every feed within the last days."""
    state = tiles.State(layout)
    for at, feed in enumerate(layout.feeds):
        for _ in range(int(events)):
            when = now_ms - int(rng.exponential(1.5 * DAY_MS)) % (6 * DAY_MS)
            values = [_value(" ".join(fields), rng, items) for fields in feed.values]
            tiles.apply(layout, state, at, when, now_ms, values)
    return tiles.pack(layout, state)


def _value(fields: str, rng: np.random.Generator, items: int) -> str | int:
    if "item" in fields:
        return f"i{int(items * rng.random() ** 3)}"
    if "category" in fields:
        return f"c{rng.integers(CATEGORIES)}"
    return f"u{rng.integers(10_000)}" if "user" in fields else int(rng.integers(200, 20_000))


def _two_tower(scale: Scale, ids: list[str], scratch: Path) -> tuple[NDArray[np.float32], dict[str, bytes | Path]]:
    """The network with clustered instead of learned ids, and its item embeddings."""
    rng = np.random.default_rng(scale.seed)
    content = Content(
        np.concatenate([[0], rng.integers(1, CATEGORIES + 1, scale.items)]),
        np.log1p(rng.integers(200, 20_000, scale.items + 1)).astype(np.float32),
    )
    model = TwoTower(scale.users, content, TwoTowerConfig(dim=scale.dim))
    with torch.no_grad():
        points = clustered(scale.items, scale.dim, scale.clusters, scale.seed)
        model.item_tower.ids.weight[1:] = torch.from_numpy(points)
        home = rng.integers(0, scale.items, scale.users)
        near = points[home] + 0.3 * rng.standard_normal((scale.users, scale.dim), dtype=np.float32)
        model.user_tower.ids.weight[1:] = torch.from_numpy(near)
    files: dict[str, bytes | Path] = {}
    for name, encoder in (("user", onnx_export.user_encoder), ("item", onnx_export.item_encoder)):
        path = scratch / f"{name}_encoder.onnx"
        path.write_bytes(encoder(model))
        files[path.name] = path
    files |= {
        "users.txt": _text([f"u{i}" for i in range(scale.users)]), "items.txt": _text(ids),
        "categories.txt": _text([f"c{i}" for i in range(CATEGORIES)]),
    }  # fmt: skip
    return model.embed_items(), files


def _neighbours(scale: Scale, ids: list[str], scratch: Path) -> dict[str, dict[str, bytes | Path]]:
    rng = np.random.default_rng(scale.seed + 1)
    neighbours = (scale.items * rng.random((scale.items, _NEIGHBOURS)) ** 2).astype(np.int32)
    scores = np.tile(np.linspace(1, 0.1, _NEIGHBOURS, dtype=np.float32), (scale.items, 1))
    np.savez(scratch / "neighbours.npz", ids=neighbours, scores=scores, say=CooccurrenceConfig().say)
    popularity = (1.0 / np.arange(1, scale.items + 1) ** 0.8).astype(np.float32)
    np.savez(scratch / "popularity.npz", scores=popularity)
    assert Cooccurrence.load(scratch / "neighbours.npz").ids.shape == neighbours.shape
    return {
        "cooccurrence": {"neighbours.npz": scratch / "neighbours.npz", "items.txt": _text(ids)},
        "popularity": {"popularity.npz": scratch / "popularity.npz", "items.txt": _text(ids)},
    }


def _rankers(plan: FeaturePlan, scale: Scale, threads: int) -> dict[str, dict[str, bytes | Path]]:
    """Trees of the usual number and depth, grown on the funnel's rows towards a made-up taste for all of them."""
    from pipelines.rankers import fitted_as  # brings MLflow, which only building needs

    rng, each = np.random.default_rng(scale.seed + 2), 100
    rows = ranking_rows(plan, scale, 200, each, scale.seed + 2).reshape(-1, len(FEATURES))
    known = np.nan_to_num(rows.astype(np.float64))
    spread = known.std(axis=0)
    scaled = (known - known.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    heat = scaled @ rng.normal(size=len(FEATURES)) + scaled[:, 13] * scaled[:, 31] + rng.normal(size=len(rows))
    labels = np.digitize(heat, np.quantile(heat, [0.8, 0.95, 0.99])).astype(np.int32)
    data = ranker.RankingRows(rows, labels, np.full(len(rows) // each, each))
    names = json.dumps(list(FEATURES)).encode()
    files: dict[str, dict[str, bytes | Path]] = {}
    for name, config in (
        ("preranker", ranker.PRERANKER),
        ("ranker", ranker.RankerConfig(trees=scale.trees, leaves=scale.leaves, min_rows_per_leaf=20)),
    ):
        booster = ranker.refit_on_all(data, min(config.trees, scale.trees), config, FEATURES, threads=threads)
        fitted = fitted_as("student" if scale.students else "trees", booster, data, name, threads)
        files[name] = {"model.onnx": fitted.graph(), "features.json": names}
    return files


def _catalogue(scale: Scale, ids: list[str]) -> Any:
    rng, n, now = np.random.default_rng(scale.seed + 3), scale.items, _now_ms()
    listed = now - (rng.random(n) * 300 * 24 * HOUR_MS).astype(np.int64)
    return pa.table({
        "event_id": [f"e{i}" for i in range(n)], "event_time": np.full(n, now - HOUR_MS), "item_id": ids,
        "title": ids, "category": [f"c{c}" for c in rng.integers(0, CATEGORIES, n)],
        "price_cents": rng.integers(200, 20_000, n), "seller_id": ["s1"] * n, "listed_at": listed,
        "stock": np.where(rng.random(n) < 0.02, 0, 9), "promoted": rng.random(n) < 0.005,
    })  # fmt: skip


def _bundle(home: Path, name: str, files: dict[str, bytes | Path]) -> Bundle:
    meta = {"encoder_version": VERSION} if name == "index" else {}
    return write_bundle(home / "published", name, VERSION, files, meta, gate="passed")


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
