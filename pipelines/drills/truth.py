"""How good the served feeds are under the planted truth, without waiting for anybody to click.

Quality of a feed = the expected clicks on it over the expected clicks on the best feed that exists for this shopper
at this moment (1 = nobody could do better). It weighs places by the chance that they are looked at, so it is NDCG with
the marketplace's own discount and the true chance of a click as gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.errors import Misconfigured
from models.marketplace.config import Scenario
from models.marketplace.scenarios import under
from models.marketplace.truth import best_feed, click_chances
from models.marketplace.world import World, item_id

AT_ONCE = 32  # shoppers whose whole catalogue is scored together


@dataclass(frozen=True)
class Feeds:
    """Served feeds: user rows [n], item rows [n, k] (-1: not of this world), times [n] ms."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    times: NDArray[np.int64]


class Truth:
    """The planted world, under whatever scenario holds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._worlds: dict[Scenario, World] = {}

    @classmethod
    def load(cls, folder: Path) -> Truth:
        """Raises Misconfigured where there is no simulated marketplace (own data)."""
        path = folder / "world.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(World.from_arrays({name: arrays[name] for name in arrays.files}))
        except (OSError, KeyError, ValueError) as error:
            detail = f"{path}: no planted truth ({error}); drills need the simulator's data, make demo without DATA"
            raise Misconfigured(detail) from None

    def under(self, scenario: Scenario) -> World:
        if scenario not in self._worlds:
            self._worlds[scenario] = under(self.world, scenario)
        return self._worlds[scenario]

    def rows_of(self, item_ids: Sequence[str], k: int) -> list[int]:
        """World rows of a feed, padded with -1 to k."""
        rows = [int(i[1:]) if i[:1] == "i" and i[1:].isdecimal() else -1 for i in item_ids[:k]]
        known = [r if 0 <= r < len(self.world.category) and item_id(r) == i else -1
                 for r, i in zip(rows, item_ids, strict=False)]  # fmt: skip
        return known + [-1] * (k - len(known))

    def clicks(self, feeds: Feeds, scenario: Scenario) -> NDArray[np.float64]:
        """Expected clicks [n] on each feed."""
        return np.asarray(click_chances(self.under(scenario), feeds.users, feeds.items, feeds.times).sum(axis=1))

    def quality(self, feeds: Feeds, scenario: Scenario) -> NDArray[np.float64]:
        """Expected clicks on each feed as a share of those on the best feed [n]."""
        world, k = self.under(scenario), feeds.items.shape[1]
        found = np.zeros(len(feeds.users))
        for start in range(0, len(found), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            users, times = feeds.users[part], feeds.times[part]
            best = click_chances(world, users, best_feed(world, users, times, k), times).sum(axis=1)
            got = click_chances(world, users, feeds.items[part], times).sum(axis=1)
            found[part] = got / np.maximum(best, 1e-12)
        return found


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean and its standard error; (nan, nan) of nothing."""
    if not len(values):
        return float("nan"), float("nan")
    return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
