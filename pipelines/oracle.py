"""The simulator's planted truth as a model: what nobody could rank better than. Evaluation alone may read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.marketplace.truth import click_share
from models.marketplace.world import World, item_id, user_id
from pipelines.history import Ints
from pipelines.stages import Context


@dataclass(frozen=True)
class Oracle:
    """The world, and which of its rows each known shopper and item is."""

    world: World
    user_row: dict[int, int]
    item_row: Ints

    def scores(self, user: int, time_ms: int) -> NDArray[np.float64]:
        """The true chance that the shopper's next search ends on each known item, float64 [items]."""
        found = click_share(self.world, np.array([self.user_row[user]]), np.array([time_ms]))
        return np.asarray(found[0, self.item_row], dtype=np.float64)


def open_oracle(context: Context) -> Oracle | None:
    """The planted truth of a simulated history; None for the user's own data."""
    path = context.settings.truth / "world.npz"
    if context.meta.get("source") != "simulator" or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as saved:
        arrays: dict[str, Any] = {name: saved[name] for name in saved.files}
    world, history = World.from_arrays(arrays), context.history
    users = {user_id(row): row for row in range(len(world.taste))}
    items = {item_id(row): row for row in range(len(world.category))}
    user_row = {code: users[str(name)] for code, name in enumerate(history.users) if str(name) in users}
    return Oracle(world, user_row, np.array([items[str(name)] for name in history.items]))
