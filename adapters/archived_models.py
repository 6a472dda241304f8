"""The models of one past decision, loaded from verified bundles: what replay runs. A few sets stay loaded."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adapters.bundle_archive import find
from adapters.bundles import Bundle
from adapters.errors import Corrupt, MinimartError
from adapters.model_server import open_session
from models.ann_index import AnnIndex
from models.contributions import Explained, Network, Trees
from models.cooccurrence import Cooccurrence

RECENT: Final = 20  # recent items that the shopper tower takes
_FEATURES_ENTRY: Final = "features"  # of model_versions: the feature plan, which is no bundle


class ArchivedModels:
    """One line-up as it served. Every property raises KeyError where its bundle is not there (`problems` says why)."""

    def __init__(self, bundles: Mapping[str, Bundle], problems: Mapping[str, str]) -> None:
        self.bundles, self.problems = bundles, problems

    def score(self, name: str, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The score of each of `rows` by the pre-ranker or the ranker."""
        values = self._sessions[name].run(["score"], {"features": rows})[0]
        return np.asarray(values[:, 0], np.float32)

    def features_of(self, name: str) -> tuple[str, ...]:
        """The columns that a ranker reads, in order."""
        return tuple(json.loads(self._file(name, "features.json").read_bytes()))

    def embed(self, user_id: str, recent: tuple[str, ...]) -> NDArray[np.float32]:
        """The shopper in item space, from the two-tower model."""
        rows = [self._tower_rows[item] for item in recent if item in self._tower_rows and item in self.row_of][:RECENT]
        padded = np.zeros((1, RECENT), np.int64)
        padded[0, : len(rows)] = rows
        inputs = {"user_index": np.array([self._users.get(user_id, 0)], np.int64), "recent_items": padded}
        return np.asarray(self._sessions["two-tower"].run(["embedding"], inputs)[0][0], np.float32)

    @cached_property
    def index(self) -> AnnIndex:
        return AnnIndex.load(self._file("index", "items.faiss"))

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Item -> its row in the index."""
        return {item: row for row, item in enumerate(_lines(self._file("index", "items.txt")))}

    @cached_property
    def cooccurrence(self) -> Cooccurrence:
        """Raises Corrupt where its items are not the index's: such a set is served by a mapping that is not kept."""
        if _lines(self._file("cooccurrence", "items.txt")) != tuple(self.row_of):
            raise Corrupt("co-occurrence and index are of different items")
        return Cooccurrence.load(self._file("cooccurrence", "neighbours.npz"))

    @cached_property
    def popularity(self) -> Mapping[str, float]:
        with np.load(self._file("popularity", "popularity.npz"), allow_pickle=False) as arrays:
            scores = arrays["scores"].astype(np.float64).tolist()
        return dict(zip(_lines(self._file("popularity", "items.txt")), scores, strict=True))

    @cached_property
    def ranker(self) -> Explained:
        """The ranker in the form that served, for what each feature added."""
        if self.bundles["ranker"].manifest.meta.get("form") == "student":
            return Network(lambda rows: self.score("ranker", rows))
        return Trees(self._file("ranker", "model.txt"))

    def _file(self, name: str, file: str) -> Path:
        return self.bundles[name].path(file)

    @cached_property
    def _sessions(self) -> Mapping[str, Any]:
        files = {"two-tower": "user_encoder.onnx", "preranker": "model.onnx", "ranker": "model.onnx"}
        return {name: open_session(self._file(name, file)) for name, file in files.items() if name in self.bundles}

    @cached_property
    def _users(self) -> Mapping[str, int]:
        return {user: row for row, user in enumerate(_lines(self._file("two-tower", "users.txt")), start=1)}

    @cached_property
    def _tower_rows(self) -> Mapping[str, int]:
        return {item: row for row, item in enumerate(_lines(self._file("two-tower", "items.txt")), start=1)}


class Shelves:
    """Line-ups by their digests; the last `keep` stay loaded."""

    def __init__(self, published: Path, *, keep: int = 3) -> None:
        self._published, self._keep = published, keep
        self._loaded: OrderedDict[str, ArchivedModels] = OrderedDict()

    def of(self, record: Mapping[str, Any]) -> ArchivedModels:
        """The models that made a recorded decision, as far as they are found and verify."""
        versions = {name: str(v) for name, v in record["model_versions"].items() if name != _FEATURES_ENTRY}
        manifests: Mapping[str, str] = record.get("manifests") or {}
        key = hashlib.sha256(repr((sorted(versions.items()), sorted(manifests.items()))).encode()).hexdigest()
        if key not in self._loaded:
            found = self._load(versions, manifests)
            if found.problems:
                return found  # perhaps it is there next time
            self._loaded[key] = found
            while len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _load(self, versions: Mapping[str, str], manifests: Mapping[str, str]) -> ArchivedModels:
        bundles, problems = {}, {}
        for name, version in versions.items():
            try:
                bundles[name] = find(self._published, name, version, manifests.get(name))
            except MinimartError as error:
                problems[name] = error.detail
        return ArchivedModels(bundles, problems)


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().splitlines())
