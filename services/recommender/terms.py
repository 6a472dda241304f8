"""The nouns of one request: what is asked, who asks, what was found, what was decided. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.rollout.shares import Arm

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]
Stage = Literal["retrieve", "features", "prerank", "rank", "rerank"]
STAGES: tuple[Stage, ...] = ("retrieve", "features", "prerank", "rank", "rerank")
KAFKA_DOWN = "kafka_down"
REASONS = (
    "redis_down", "triton_down", KAFKA_DOWN, "retrieve_late", "features_late", "prerank_skipped", "rank_skipped",
    "rerank_skipped", "models_missing",
)
"""Every value that `degraded` may hold."""


@dataclass(frozen=True)
class Ask:
    """One request for a feed of `k` products."""

    request_id: str
    user_id: str
    now_ms: int
    k: int = 20
    surface: str = "home"
    device: str | None = None
    country: str | None = None
    of_age: bool = False
    """Whether the shopper is known to be of age; unless so, products for adults are not shown."""


@dataclass(frozen=True)
class Shopper:
    """What is known of who asks. `features` are the user_activity windows; `recent` are item ids, newest first.

    `tastes` are the windows of (shopper, category) for all of the shelf's categories, None where they were not read.
    """

    user_id: str
    features: Mapping[str, float] = field(default_factory=dict)
    recent: tuple[str, ...] = ()
    seen_before: bool = False
    tastes: Mapping[str, Scores] | None = None


@dataclass(frozen=True)
class Pool:
    """Candidates [n], best first by fusion. `ranks`: source -> 1-based place in its list, NaN where not returned."""

    rows: Rows
    ranks: Mapping[str, Scores]
    fused: Scores

    def take(self, positions: NDArray[np.integer[Any]]) -> Pool:
        ranks = {name: rank[positions] for name, rank in self.ranks.items()}
        return Pool(self.rows[positions], ranks, self.fused[positions])

    def sources_of(self, rows: Sequence[int]) -> list[tuple[str, ...]]:
        """The sources that brought each of `rows`, all of which are in the pool."""
        positions = np.argmax(self.rows[None, :] == np.array(rows, np.int64)[:, None], axis=1)
        brought = [(name, ~np.isnan(rank[positions])) for name, rank in self.ranks.items()]
        return [tuple(name for name, hit in brought if hit[i]) for i in range(len(rows))]


@dataclass(frozen=True)
class Placed:
    """One product of the answer. `score` is the last stage's that scored; higher is better within one answer only."""

    item_id: str
    score: float
    sources: tuple[str, ...]
    position: int
    new: bool
    moved_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """What the re-ranking rules were given, so that they can be applied again to the same."""

    rows: Rows
    """The slate before the first rule, best first."""
    rules: tuple[Mapping[str, Any], ...] = ()
    """Each rule that was applied, with its numbers, in order."""
    new: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    promoted: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    adult: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    categories: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of each of `rows`, a code."""
    liked: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """The categories of what the shopper touched last, newest first."""
    vectors: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    """Embeddings of those that the index does not hold, as far as a rule asked for them."""


@dataclass(frozen=True)
class Decision:
    """The answer and everything it was made from. Arrays are aligned with the pool they belong to."""

    ask: Ask
    placed: tuple[Placed, ...]
    model_versions: Mapping[str, str]
    timings_ms: Mapping[str, float]
    degraded: tuple[str, ...]
    cold_start: str | None
    shopper: Shopper
    ids: NDArray[Any]
    """Item id of every row of the shelf that answered."""
    pool: Pool
    preranked: tuple[Rows, Scores] | None
    """Rows and scores of all candidates, as the pre-ranker gave them."""
    ranked: tuple[Rows, Scores] | None
    features: NDArray[np.float32] | None
    """Rows of `ranked`'s candidates, in its order."""
    dropped: tuple[tuple[str, str], ...]
    items_at_ms: int
    """When the item windows were read."""
    manifests: Mapping[str, str]
    """Model -> SHA-256 of the manifest of the version that served."""
    looked: Looked
    embedding: NDArray[np.float32] | None
    """The shopper in item space, as retrieval used it."""
    arm: Arm = "champion"
    rollout: str | None = None
    """The experiment that the arm belongs to, None outside of one."""
    cached_ms: float = 0.0
    """How long before this answer the decision was made, 0 where it was made for it."""
    made_for: str | None = None
    """The request that the decision was made for, None where it is this one."""
