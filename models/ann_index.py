"""The item index: FAISS, inner product over L2-normalised embeddings, so scores are cosines.

Three kinds, chosen by size from measurements (`bench/results/ann_rule.json`, written by `python -m bench.ann_rule`): a
flat index is exact and quick while items are few; HNSW's graph answers quickest in between, for some 500 bytes an item
and a slow build; inverted lists over 8-bit scalars take over where that costs too much (72 bytes an item).
Position i of the index is line i of `items.txt`. A built index never changes: what is listed after it gets a second,
small one, searched beside it, until the next build takes it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

Kind = Literal["exact", "hnsw", "ivf"]
Rows = NDArray[np.integer[Any]]
_faiss: Any = faiss  # its stubs lack selectors and parameters
WIDENINGS: Final = (1, 4, 16)


@dataclass(frozen=True)
class AnnConfig:
    """The rule and the numbers of each kind."""

    exact_below: int = 20_000
    hnsw_below: int = 200_000
    links: int = 32
    """Neighbours of a node of the graph; twice as many on its ground floor."""
    build_beam: int = 80
    search_beam: int = 600
    """Nodes that a search of the graph keeps in sight; as many as are asked for at least."""
    lists_per_root: float = 4.0
    """Inverted lists = this x sqrt(items)."""
    probe_share: float = 1 / 32
    """Share of the lists that a query visits, at least `min_probes`."""
    min_probes: int = 16
    train_per_list: int = 40

    def __post_init__(self) -> None:
        if not 0 <= self.exact_below <= self.hnsw_below:
            raise ValueError(f"0 <= exact_below {self.exact_below} <= hnsw_below {self.hnsw_below} is needed")

    def kind(self, n_items: int) -> Kind:
        """The kind for so many items."""
        return "exact" if n_items < self.exact_below else "hnsw" if n_items < self.hnsw_below else "ivf"

    def lists(self, n_items: int) -> int:
        return max(1, int(self.lists_per_root * n_items**0.5))

    def probes(self, n_items: int) -> int:
        return min(self.lists(n_items), max(self.min_probes, round(self.lists(n_items) * self.probe_share)))

    def describe(self, n_items: int) -> str:
        """The kind with its numbers, e.g. `IVF4000,SQ8 nprobe 125`."""
        match self.kind(n_items):
            case "exact":
                return "exact"
            case "hnsw":
                return f"HNSW{self.links} efSearch {self.search_beam}"
            case "ivf":
                return f"IVF{self.lists(n_items)},SQ8 nprobe {self.probes(n_items)}"


class AnnIndex:
    """A searchable index; safe for concurrent searches."""

    def __init__(self, index: Any, *, threads: int = 1) -> None:
        faiss.omp_set_num_threads(threads)
        self._index = index
        self._by_row = _ByRow(index) if isinstance(index, faiss.IndexIVFScalarQuantizer) else None

    @staticmethod
    def build(
        embeddings: NDArray[np.float32], config: AnnConfig | None = None, *, threads: int = 1, seed: int = 0
    ) -> AnnIndex:
        """Index `embeddings` [N, d] as the rule says."""
        config, (n, d) = config or AnnConfig(), embeddings.shape
        vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
        faiss.omp_set_num_threads(threads)
        match config.kind(n):
            case "exact":
                index: Any = faiss.IndexFlatIP(d)
            case "hnsw":
                index = faiss.IndexHNSWFlat(d, config.links, faiss.METRIC_INNER_PRODUCT)
                index.hnsw.efConstruction, index.hnsw.efSearch = config.build_beam, config.search_beam
            case "ivf":
                index = _trained(vectors, config, seed)
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

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Best `k` of each of `queries` [B, d]: cosines [B, k] descending and rows [B, k]; -1 pads.

        With `allowed` [N] only rows where it is true are found, as many as there are: the filter works inside the
        search, it does not take away from its result.
        """
        queries, k = np.ascontiguousarray(queries, dtype=np.float32), min(k, max(len(self), 1))
        if allowed is None:
            scores, rows = self._index.search(queries, k)
            return scores, rows
        if allowed.shape != (len(self),):
            raise ValueError(f"allowed has shape {allowed.shape}, expected ({len(self)},)")
        selector = _faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        wanted = min(k, int(allowed.sum()))
        for widen in WIDENINGS:  # where too few of those that the search visited are allowed, it visits more
            scores, rows = self._index.search(queries, k, params=self._filtering(selector, widen))
            if not (rows[:, :wanted] < 0).any():
                return scores, rows
        return self._exact(queries, k, np.flatnonzero(allowed))

    def _filtering(self, selector: Any, widen: int) -> Any:
        """FAISS's parameters of a search among the selected, `widen` times as broad as without a filter."""
        if isinstance(self._index, faiss.IndexIVF):
            return _faiss.SearchParametersIVF(sel=selector, nprobe=min(widen * self._index.nprobe, self._index.nlist))
        if isinstance(self._index, faiss.IndexHNSW):
            return _faiss.SearchParametersHNSW(sel=selector, efSearch=widen * self._index.hnsw.efSearch)
        return _faiss.SearchParameters(sel=selector)

    def _exact(
        self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Compare with each of `rows`: for filters that leave so few that lists and graph do not lead to them."""
        scores = queries @ self.vectors(rows).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found_scores = np.full((len(queries), k), -np.inf, np.float32)
        found_rows = np.full((len(queries), k), -1, np.int64)
        found_scores[:, : best.shape[1]] = np.take_along_axis(scores, best, 1)
        found_rows[:, : best.shape[1]] = rows[best]
        return found_scores, found_rows

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """The stored embeddings of `rows`, float32 [n, d] (8-bit accurate in inverted lists)."""
        wanted = np.ascontiguousarray(rows, dtype=np.int64)
        if self._by_row is not None:
            return self._by_row.vectors(wanted)
        found: NDArray[np.float32] = self._index.reconstruct_batch(wanted)
        return found

    def score(self, query: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        """Cosine of one `query` [d] with each of `rows` [n]."""
        return self.vectors(rows) @ np.asarray(query, dtype=np.float32)


class _ByRow:
    """The 8-bit scalars of inverted lists once more, in order of rows: FAISS would look each vector up in its list,
    which for a thousand of them costs several times the search. 68 bytes an item at 64 dimensions."""

    def __init__(self, index: Any) -> None:
        lists = index.invlists
        self._codes = np.zeros((index.ntotal, index.code_size), np.uint8)
        self._list_of = np.zeros(index.ntotal, np.int32)
        for i in range(index.nlist):
            size = lists.list_size(i)
            if size:
                rows = faiss.rev_swig_ptr(lists.get_ids(i), size)
                self._codes[rows] = faiss.rev_swig_ptr(lists.get_codes(i), size * index.code_size).reshape(size, -1)
                self._list_of[rows] = i
        low, span = faiss.vector_to_array(index.sq.trained).reshape(2, index.d)
        centres = index.quantizer.reconstruct_n(0, index.nlist) if index.by_residual else np.zeros((index.nlist, 1))
        self._step = (span / 255).astype(np.float32)
        self._base = (centres + low + self._step / 2).astype(np.float32)
        """By list: what code 0 stands for."""

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [n, d]. Raises IndexError for a row that the index does not hold."""
        if len(rows) and rows.min() < 0:
            raise IndexError(f"row {rows.min()}: rows are 0 to {len(self._codes) - 1}")
        found: NDArray[np.float32] = self._codes.take(rows, axis=0).astype(np.float32)
        found *= self._step
        found += self._base.take(self._list_of.take(rows), axis=0)
        return found


def _trained(vectors: NDArray[np.float32], config: AnnConfig, seed: int) -> Any:
    """Empty inverted lists whose centres a sample of `vectors` chose."""
    n, d = vectors.shape
    lists = config.lists(n)
    index: Any = faiss.index_factory(d, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed + 1
    sample = np.random.default_rng(seed).choice(n, min(n, lists * config.train_per_list), replace=False)
    index.train(vectors[sample])
    index.nprobe = config.probes(n)
    return index
