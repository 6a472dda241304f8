"""Which keys are looked at, and at which times.

Keys: the hottest, some drawn as they occur, rare and unknown ones. Times: the edges of minutes, hours and days, and so
much later that windows run empty.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from pipelines.parity.brute_rows import Key, keys_of
from pipelines.parity.generate import DAY, HOUR, MINUTE, Stream

READ: Final = 30_000  # payloads that keys are drawn from
LATER: Final = (HOUR, DAY, 7 * DAY, 30 * DAY)
Sample = dict[str, list[Key]]


def choose_keys(plan: dict[str, Any], stream: Stream, per_view: int, seed: int) -> Sample:
    """View -> keys: a quarter of them the hottest, the others drawn by how often they occur, and two that never do."""
    rng = np.random.default_rng([seed, 1])
    n = len(stream.payloads)
    found: dict[str, Counter[Key]] = {v["name"]: Counter() for v in plan["declared_views"]}
    for at in rng.choice(n, min(READ, n), replace=False).tolist():
        for view, key in keys_of(plan, stream.topics[at], stream.payloads[at]):
            found[view][key] += 1
    chosen: Sample = {}
    for view in plan["declared_views"]:
        counted = sorted(found[view["name"]].items(), key=lambda one: (-one[1], one[0]))
        hot, rest = counted[:per_view // 4], counted[per_view // 4:]
        weight = np.array([times for _, times in rest], dtype=float)
        size = min(per_view - len(hot), len(rest))
        drawn = rng.choice(len(rest), size, replace=False, p=weight / weight.sum()).tolist() if size else []
        keys = [key for key, _ in hot] + [rest[at][0] for at in sorted(drawn)]
        chosen[view["name"]] = [*keys, *(tuple(f"nobody{n}" for _ in view["join_keys"]) for n in range(2))]
    return chosen


def choose_times(first: int, last: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` times from `first` to `last`, both inclusive, rising: on both sides of the next edges of tiles, those at
    which windows run empty, and some at random."""
    grains = (MINUTE, HOUR, DAY)
    starts = (first, *(first + later for later in LATER))
    edges = [start // grain * grain + grain for start in starts for grain in grains]
    wanted = [first, *(edge + step for edge in edges for step in (-1, 0)), *(first + later for later in LATER)]
    inside = sorted({t for t in wanted if first <= t <= last})
    edges_picked = rng.permutation(inside[1:])[:max(0, count - 3)].tolist() if len(inside) > 1 else []
    at_random = [first + int((last - first) * share) for share in rng.random(2) ** 3]
    return sorted({first, *edges_picked, *at_random})
