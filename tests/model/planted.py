"""A planted toy for retrieval models: users walk along chains of items within categories, and some are popular."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CATEGORIES, EACH = 8, 20
ITEMS = CATEGORIES * EACH


def walks(users: int = 300, seed: int = 3) -> list[list[int]]:
    """Sequences of distinct items: mostly the next of the chain, sometimes any of the category, rarely any at all."""
    rng = np.random.default_rng(seed)
    heat = rng.gamma(0.7, 1.0, ITEMS) + 0.02
    found = []
    for _ in range(users):
        item = int(rng.choice(ITEMS, p=heat / heat.sum()))
        walk = [item]
        for _ in range(int(rng.integers(5, 11))):
            category, place = divmod(item, EACH)
            draw = rng.random()
            if draw < 0.7:
                item = category * EACH + (place + 1) % EACH
            elif draw < 0.95:
                item = category * EACH + int(rng.integers(EACH))
            else:
                item = int(rng.choice(ITEMS, p=heat / heat.sum()))
            if item not in walk:
                walk.append(item)
        found.append(walk)
    return found


def write_folder(folder: Path, sequences: list[list[int]]) -> Path:
    """The walks as events.csv and items.csv of the import contract."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"u{u},i{item},{1_600_000_000 + 86_400 * (step * 7 + u % 7)}"
            for u, walk in enumerate(sequences) for step, item in enumerate(walk)]  # fmt: skip
    (folder / "events.csv").write_text("user_id,item_id,time\n" + "\n".join(rows) + "\n")
    items = [f"i{item},Chain {item // EACH} thing,chain {item // EACH}" for item in range(ITEMS)]
    (folder / "items.csv").write_text("item_id,title,category\n" + "\n".join(items) + "\n")
    return folder


def write_text(path: Path, sequences: list[list[int]]) -> Path:
    """The walks as `user item item ...`, a line each."""
    path.write_text("".join(f"{user} {' '.join(map(str, walk))}\n" for user, walk in enumerate(sequences)))
    return path
