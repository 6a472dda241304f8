"""What Redis holds, through the reader that serving uses: packed tiles, merged into windows at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from adapters.online_store import OnlineStore
from feature_repo import tiles
from feature_repo.plan import FeaturePlan

TIMEOUT_MS = 10_000.0
Key = tuple[str, ...]


def columns(redis_url: str, plan: FeaturePlan, view: str, keys: Sequence[Key], times: Sequence[int]
            ) -> list[dict[str, np.ndarray]]:
    """Per time: feature -> column [len(keys)]. The tiles are read once. Raises Unavailable."""
    packed = asyncio.run(_read(redis_url, plan, view, keys))
    return [tiles.columns(plan.view(view), packed, at) for at in times]


async def _read(redis_url: str, plan: FeaturePlan, view: str, keys: Sequence[Key]) -> list[bytes | None]:
    store = OnlineStore(redis_url, plan, timeout_ms=TIMEOUT_MS)
    try:
        return await store.read(view, list(keys))
    finally:
        await store.close()
