"""Embeddings as a large catalogue has them: clusters of uneven size around a few themes. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clustered(n: int, dim: int, clusters: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors [n, dim] around centres that themselves lie around a few directions, sizes by Zipf's law."""
    rng = np.random.default_rng(seed)
    themes = rng.normal(size=(32, dim))
    centres = themes[rng.integers(0, 32, clusters)] + 0.9 * rng.normal(size=(clusters, dim))
    weight = 1.0 / np.arange(1, clusters + 1) ** 0.8
    points = centres[rng.choice(clusters, n, p=weight / weight.sum())].astype(np.float32)
    points += 0.55 * rng.standard_normal((n, dim), dtype=np.float32)
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), np.float32)
