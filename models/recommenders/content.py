"""Content profiles: items as hashed TF-IDF of their texts and categories, reduced by SVD; a history as what it holds.

Judges an item by what is written about it, so it is the model that knows items nobody has touched yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from models.recommenders.base import Catalogue, Floats, Histories, Recommender, Training

_BUCKETS = 2**16
_MOST_RECENT = 30


class ContentProfile(Recommender):
    """L2-normalised item vectors float32 [N, d] from content alone."""

    name = "content"
    default = {"recency": 0.8, "dim": 64, "popular": 0.1}
    space = {"recency": (0.3, 0.5, 0.7, 0.8, 0.9, 1.0), "dim": (64, 128), "popular": (0.0, 0.03, 0.1, 0.3, 1.0)}
    share = 0.5

    @classmethod
    def suits(cls, training: Training) -> str:
        return "" if training.catalogue.described else "the items have neither titles nor categories"

    def fit(self, training: Training) -> None:
        self._vectors = vectors(training.catalogue, self.config["dim"], training.seed)
        counts = np.log1p(training.counts)
        self._popular = (self.config["popular"] * counts / max(counts.max(initial=0.0), 1.0)).astype(np.float32)

    def score(self, histories: Histories) -> Floats:
        asked = histories.sequences.matrix(len(self._vectors), self.config["recency"], _MOST_RECENT)
        profile = unit(np.asarray(asked @ self._vectors, dtype=np.float32))
        return np.asarray(profile @ self._vectors.T + self._popular, dtype=np.float32)


def vectors(catalogue: Catalogue, dim: int, seed: int) -> Floats:
    """Item vectors [N, <= dim], L2-normalised; an item without any content is the zero vector."""
    words = _words(catalogue)
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(words)
    known = len(np.unique(words.indices))
    if known <= dim:
        columns = np.unique(weighted.indices)
        return unit(np.asarray(weighted[:, columns].toarray(), dtype=np.float32))
    reduced = TruncatedSVD(min(dim, known - 1, catalogue.n_items - 1), random_state=seed).fit_transform(weighted)
    return unit(np.asarray(reduced, dtype=np.float32))


def unit(rows: NDArray[np.float32]) -> Floats:
    """Rows of length one; a zero row stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _words(catalogue: Catalogue) -> sparse.csr_matrix:
    texts = list(catalogue.text or [""] * catalogue.n_items)
    if catalogue.category is not None:
        texts = [f"{text} category{code}" for text, code in zip(texts, catalogue.category, strict=True)]
    if catalogue.log_price is not None:
        bands = np.nan_to_num(catalogue.log_price * 2, nan=-1).astype(int)
        texts = [f"{text} price{band}" if band >= 0 else text for text, band in zip(texts, bands, strict=True)]
    hashed = HashingVectorizer(n_features=_BUCKETS, alternate_sign=False, norm=None, ngram_range=(1, 2))
    return hashed.transform(texts).tocsr()
