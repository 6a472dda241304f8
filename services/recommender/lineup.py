"""The models that serve together: one verified set of bundles, loaded, checked against one another and warmed.

Rows are lines of the index's items.txt, 0-based; whatever the other bundles call their rows is mapped to these here.
Knows neither the catalogue nor a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.bundles import Bundle
from adapters.errors import Corrupt
from adapters.model_server import InProcess, open_session
from models.ann_index import AnnIndex
from models.cooccurrence import Cooccurrence
from models.ranking_features import FEATURES

RECENT: Final = 20  # recent items that the shopper tower takes


@dataclass(frozen=True)
class Lineup:
    """Everything that retrieval needs in memory, and the versions that ranking asks the model server for."""

    versions: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, str] = field(default_factory=dict)
    """Model -> SHA-256 of its manifest: which bytes served."""
    items: tuple[str, ...] = ()
    row_of: Mapping[str, int] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)
    tower_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[items] 1-based row of each item in the two-tower's items.txt, 0 = it does not know it."""
    index: AnnIndex | None = None
    cooccurrence: Cooccurrence | None = None
    popularity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    item_encoder: Any = None

    @property
    def complete(self) -> bool:
        return {"two-tower", "index", "cooccurrence", "popularity", "preranker", "ranker"} <= self.versions.keys()

    def tower_inputs(self, user_id: str, recent: tuple[str, ...]) -> dict[str, NDArray[np.int64]]:
        """Inputs of two_tower_user: user_index [1], recent_items [1, RECENT], 0 = unknown or padding."""
        rows = [self.tower_rows[self.row_of[item]] for item in recent if item in self.row_of]
        known = [row for row in rows if row > 0][:RECENT]
        padded = np.zeros((1, RECENT), np.int64)
        padded[0, : len(known)] = known
        return {"user_index": np.array([self.users.get(user_id, 0)], np.int64), "recent_items": padded}

    def encode_items(self, categories: list[str], price_cents: NDArray[Any]) -> NDArray[np.float32] | None:
        """Embeddings [n, d] of items that the index does not hold, from category and price; None without a model."""
        if self.item_encoder is None or not categories:
            return None
        inputs = {
            "item_index": np.zeros(len(categories), np.int64),
            "category_index": np.array([self.categories.get(c, 0) for c in categories], np.int64),
            "log_price": np.log1p(price_cents).astype(np.float32),
        }
        embeddings: NDArray[np.float32] = self.item_encoder.run(["embedding"], inputs)[0]
        return embeddings if np.isfinite(embeddings).all() else None


def load_lineup(bundles: Mapping[str, Bundle], in_process: InProcess, *, threads: int = 1) -> Lineup:
    """Load a verified set and warm it; ONNX models are put into `in_process`. Raises Corrupt if it does not fit."""
    _check(bundles)
    owner = next((name for name in ("index", "cooccurrence", "two-tower") if name in bundles), None)
    items = _lines(bundles[owner], "items.txt") if owner else ()
    row_of = {item: row for row, item in enumerate(items)}
    lineup = Lineup(
        versions={name: bundle.version for name, bundle in bundles.items()},
        manifests={name: bundle.manifest_sha256 for name, bundle in bundles.items()},
        items=items,
        row_of=row_of,
        users=_rows(bundles, "users.txt"),
        categories=_rows(bundles, "categories.txt"),
        tower_rows=_aligned(bundles, "two-tower", items, lambda n: np.arange(1, n + 1)).astype(np.int64),
        index=_index(bundles, len(items), threads),
        cooccurrence=_cooccurrence(bundles, items, row_of),
        popularity=_popularity(bundles, items),
        item_encoder=open_session(bundles["two-tower"].path("item_encoder.onnx")) if "two-tower" in bundles else None,
    )
    _put_and_warm(bundles, lineup, in_process)
    return lineup


def _check(bundles: Mapping[str, Bundle]) -> None:
    if "index" in bundles and "two-tower" in bundles:
        built, serving = bundles["index"].manifest.meta.get("encoder_version"), bundles["two-tower"].version
        if str(built) != serving:
            raise Corrupt(f"index {bundles['index'].version} was built by two-tower {built}, not by {serving}")
    for name in ("preranker", "ranker"):
        if name in bundles:
            names = json.loads(bundles[name].path("features.json").read_bytes())
            if tuple(names) != FEATURES:
                raise Corrupt(f"{name} {bundles[name].version}: its features.json is not this program's feature list")


def _put_and_warm(bundles: Mapping[str, Bundle], lineup: Lineup, in_process: InProcess) -> None:
    files = (("two_tower_user", "two-tower", "user_encoder.onnx"), ("preranker", "preranker", "model.onnx"),
             ("ranker", "ranker", "model.onnx"))
    for model, name, file in files:
        if name not in bundles:
            continue
        in_process.put(model, bundles[name].version, bundles[name].path(file))
        for rows in (1, 200, 1000):
            if model == "two_tower_user":
                inputs: dict[str, NDArray[Any]] = dict(lineup.tower_inputs("", ()))
            else:
                inputs = {"features": np.zeros((rows, len(FEATURES)), np.float32)}
            in_process.infer_now(model, bundles[name].version, inputs)
    lineup.encode_items([""], np.zeros(1))
    if lineup.index is not None:
        lineup.index.search(np.zeros((1, lineup.index.dim), np.float32), 10)


def _lines(bundle: Bundle, file: str) -> tuple[str, ...]:
    return tuple(bundle.path(file).read_text().splitlines())


def _rows(bundles: Mapping[str, Bundle], file: str) -> dict[str, int]:
    """Id -> 1-based row, of a file of the two-tower bundle."""
    if "two-tower" not in bundles:
        return {}
    return {line: row for row, line in enumerate(_lines(bundles["two-tower"], file), start=1)}


def _aligned(bundles: Mapping[str, Bundle], name: str, items: tuple[str, ...], values: Any) -> NDArray[Any]:
    """Values of a bundle's own items.txt rows (`values(n)` -> [n]), put in the order of `items`; 0 where absent."""
    if name not in bundles:
        return np.zeros(len(items))
    own = _lines(bundles[name], "items.txt")
    given = values(len(own))
    if len(given) != len(own):
        raise Corrupt(f"{name} {bundles[name].version}: {len(given)} values for {len(own)} items")
    if own == items:
        return np.asarray(given)
    value_of = dict(zip(own, given, strict=True))
    return np.array([value_of.get(item, 0) for item in items])


def _index(bundles: Mapping[str, Bundle], n_items: int, threads: int) -> AnnIndex | None:
    if "index" not in bundles:
        return None
    try:
        index = AnnIndex.load(bundles["index"].path("items.faiss"), threads=threads)
    except ValueError as error:
        raise Corrupt(str(error)) from None
    if len(index) != n_items:
        raise Corrupt(f"index {bundles['index'].version} holds {len(index)} vectors for {n_items} items")
    return index


def _popularity(bundles: Mapping[str, Bundle], items: tuple[str, ...]) -> NDArray[np.float64]:
    if "popularity" not in bundles:
        return np.zeros(len(items))
    with np.load(bundles["popularity"].path("popularity.npz"), allow_pickle=False) as arrays:
        scores = arrays["scores"]
    return _aligned(bundles, "popularity", items, lambda _: scores).astype(np.float64)


def _cooccurrence(
    bundles: Mapping[str, Bundle], items: tuple[str, ...], row_of: Mapping[str, int]
) -> Cooccurrence | None:
    if "cooccurrence" not in bundles:
        return None
    try:
        loaded = Cooccurrence.load(bundles["cooccurrence"].path("neighbours.npz"))
    except (ValueError, KeyError) as error:
        raise Corrupt(str(error)) from None
    own = _lines(bundles["cooccurrence"], "items.txt")
    if len(loaded.ids) != len(own):
        raise Corrupt(f"cooccurrence holds {len(loaded.ids)} rows for {len(own)} items")
    if own == items:
        return loaded
    to_row = np.array([row_of.get(item, -1) for item in own] + [-1], np.int32)  # the last answers for -1
    ids = np.full((len(items), loaded.ids.shape[1]), -1, np.int32)
    scores = np.zeros(ids.shape, np.float32)
    known = to_row[:-1] >= 0
    ids[to_row[:-1][known]] = to_row[loaded.ids[known]]
    scores[to_row[:-1][known]] = loaded.scores[known]
    return Cooccurrence(ids, scores, loaded.say)
