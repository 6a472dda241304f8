"""When the windows of a key next change although nothing happens: until then, what was read of it holds. Pure.

A window changes by the clock alone when its oldest tile leaves it, when a tile from ahead of the clock enters it, and,
where what it counts fades with age, at every tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from feature_repo.layout import Layout
from feature_repo.windows import tile_range
from feature_repo.wire import Wire

NEVER: Final = np.iinfo(np.int64).max
Ints = np.ndarray


def next_change(layout: Layout, wires: Sequence[Wire | None], now_ms: int) -> Ints:
    """Per key the first time after `now_ms`, Unix ms, at which any feature of its view may read otherwise; int64 [n].

    NEVER where none will. Holds for times from `now_ms` on, as long as the key is not written.
    """
    found = np.full(len(wires), NEVER)
    asked = {(f.span, f.aggregation.fades) for f in layout.view.declared if f.aggregation.windowed}
    for tile_ms, keys, tile in _held(layout, wires):
        for window, fades in asked:
            if window.tile_ms != tile_ms:
                continue
            first, final = tile_range(window, now_ms)
            inside, ahead = (tile >= first) & (tile <= final), tile > final
            np.minimum.at(found, keys[inside], (tile[inside] + 1) * tile_ms + window.length_ms)
            np.minimum.at(found, keys[ahead], tile[ahead] * tile_ms)
            if fades:
                np.minimum.at(found, keys[inside], (final + 1) * tile_ms)
    return found


def _held(layout: Layout, wires: Sequence[Wire | None]) -> Iterator[tuple[int, Ints, Ints]]:
    """All tiles that hold anything: their length, and (key, index) of each."""
    at = np.arange(len(wires), dtype=np.int64)
    for i, level in enumerate(layout.levels):
        parts = [b"" if w is None else w.levels[i] for w in wires]
        rows = np.frombuffer(b"".join(parts), dtype=level.dtype)
        yield level.tile_ms, at.repeat([len(p) // level.row.size for p in parts]), rows["tile"].astype(np.int64)
    sets = [(s.tile_ms, [b"" if w is None else w.distinct[i][0] for w in wires]) for i, s in enumerate(layout.distinct)]
    tops = [(s.tile_ms, [b"" if w is None else w.top[i][1] for w in wires]) for i, s in enumerate(layout.top)]
    for tile_ms, parts in sets + tops:
        yield tile_ms, at.repeat([len(p) // 4 for p in parts]), np.frombuffer(b"".join(parts), "<u4").astype(np.int64)
    for i, slot in enumerate(layout.distinct):  # tiles that overflowed into a sketch are few
        pairs = [(key, tile) for key, w in enumerate(wires) if w is not None for tile, _ in w.distinct[i][3]]
        if pairs:
            keys, tiles = np.array(pairs, np.int64).T
            yield slot.tile_ms, keys, tiles
