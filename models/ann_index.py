"""The item index: FAISS, inner product over L2-normalised embeddings, so scores are cosines.

Below `exact_below` items a flat index is exact and quick; above, inverted lists over 8-bit scalars (64 bytes an item).
Position i of the index is line i of `items.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AnnConfig:
    exact_below: int = 50_000
    lists_per_root: float = 4.0
    """Inverted lists = this x sqrt(items)."""
    probe_share: float = 1 / 64
    """Share of the lists that a query visits, at least `min_probes`."""
    min_probes: int = 16
    train_per_list: int = 40

    def lists(self, n_items: int) -> int:
        return max(1, int(self.lists_per_root * n_items**0.5))

    def probes(self, n_items: int) -> int:
        return min(self.lists(n_items), max(self.min_probes, round(self.lists(n_items) * self.probe_share)))


class AnnIndex:
    """A searchable index; safe for concurrent searches."""

    def __init__(self, index: Any, *, threads: int = 1) -> None:
        faiss.omp_set_num_threads(threads)
        self._index = index
        if hasattr(index, "make_direct_map"):
            index.make_direct_map()

    @staticmethod
    def build(
        embeddings: NDArray[np.float32], config: AnnConfig | None = None, *, threads: int = 1, seed: int = 0
    ) -> AnnIndex:
        """Index `embeddings` [N, d]; exact or inverted lists by size."""
        config, (n, d) = config or AnnConfig(), embeddings.shape
        vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
        faiss.omp_set_num_threads(threads)
        if n < config.exact_below:
            index: Any = faiss.IndexFlatIP(d)
        else:
            lists = config.lists(n)
            index = faiss.index_factory(d, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
            index.cp.seed = seed + 1
            sample = np.random.default_rng(seed).choice(n, min(n, lists * config.train_per_list), replace=False)
            index.train(vectors[sample])
            index.nprobe = config.probes(n)
        index.add(vectors)
        return AnnIndex(index, threads=threads)

    @staticmethod
    def load(path: Path, *, threads: int = 1) -> AnnIndex:
        """Read `items.faiss`. Raises ValueError if the file is not an index."""
        try:
            return AnnIndex(faiss.read_index(str(path)), threads=threads)
        except RuntimeError as error:
            raise ValueError(f"{path}: not a FAISS index: {error}") from None

    def save(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Best `k` of each of `queries` [B, d]: cosines [B, k] descending and rows [B, k]; -1 pads."""
        scores, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), min(k, max(len(self), 1)))
        return scores, rows

    def vectors(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """The stored embeddings of `rows`, float32 [n, d] (8-bit accurate in an inverted index)."""
        found: NDArray[np.float32] = self._index.reconstruct_batch(np.ascontiguousarray(rows, dtype=np.int64))
        return found

    def score(self, query: NDArray[np.float32], rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Cosine of one `query` [d] with each of `rows` [n]."""
        return self.vectors(rows) @ np.asarray(query, dtype=np.float32)
