"""1,000 features of each of many users: bytes, time to load, time to read: `python -m bench.feature_scale`.

Ten groups of 100 features (five columns, five functions, four windows), each with tiles of its own, of users with
about 12 clicks in 7 days. Loaded: packed tiles written to Redis, making them apart. Memory is what Redis itself says
before and after. Read: all 1,000 features of one random user, through the feature server's code. Figures for a million
users are the measured ones times a factor, and called so; reading does not depend on how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import redis

from adapters.feature_state import FeatureState
from adapters.online_rows import OnlineRows
from bench import feature_world as world
from bench.samples import percentiles
from feature_repo.service_versions import compile_services
from services.feature_server.answer import Answers
from services.feature_server.asks import Asks
from services.feature_server.last_known import LastKnown

NAME: Final = "feature_scale"
GROUPS: Final = tuple(f"group{i}" for i in range(10))
EVENTS: Final = 12
MILLION: Final = 1_000_000
MEMORY_MB: Final = 12_288  # Redis fails loudly beyond it: with 100,000 users it takes a tenth of that


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    users, calls = (50, 5) if asked.quick else (asked.users, asked.calls)
    views = [(world.group(name, world.shopper, name), world.shopper) for name in GROUPS]
    declared = world.declare(views, {"all": GROUPS})
    features = sum(len(v.features) for v in declared.plan.declared_views)
    now, say = int(time.time() * 1000), world.progress()
    with world.redis_of_its_own(folder, MEMORY_MB) as url:
        state, client = FeatureState(url, declared.plan, timeout_s=60), redis.Redis.from_url(url)
        before, made, wrote, packed = used(client), 0.0, 0.0, 0
        for i, view in enumerate(declared.plan.declared_views):
            began = time.perf_counter()
            rows = list(world.histories(view, users, EVENTS, now, asked.seed + i))
            made += time.perf_counter() - began
            began = time.perf_counter()
            packed += world.fill(state, view, iter(rows), now, say)
            wrote += time.perf_counter() - began
        held = used(client) - before
        world.mark_whole(state)
        samples = asyncio.run(read(url, declared, now, users, calls, asked.seed))
    per_user = held / users
    return {
        "features": features, "users": users, "latency_ms": percentiles(np.array(samples)), "samples": samples,
        "measured": {"redis_bytes_per_user": round(per_user), "packed_bytes_per_user": round(packed / users),
                     "seconds_to_make": round(made, 1), "seconds_to_load": round(wrote, 1),
                     "rows_per_second": round(users * len(GROUPS) / wrote)},
        "extrapolated_to_a_million_users": {"redis_gib": round(per_user * MILLION / 2**30, 1),
                                            "minutes_to_load": round(wrote * MILLION / users / 60, 1)},
    }  # fmt: skip


def used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


async def read(url: str, declared: world.Declared, now: int, users: int, calls: int, seed: int) -> list[float]:
    """Milliseconds of each read of all features of one user."""
    rows = OnlineRows(url, declared.plan, partitions=world.PARTITIONS, timeout_ms=5_000)
    answers = Answers(declared.plan, rows, LastKnown(64 << 20), clock=lambda: now)
    asks = Asks(declared.plan, compile_services(declared.plan))
    out = []
    for i, user in enumerate(np.random.default_rng(seed).integers(0, users, calls + 20)):
        began = time.perf_counter()
        found = await answers.answer(asks.ask("all", [], {"user_id": [f"k{user}"]}, now, now))
        if i >= 20:
            out.append(round((time.perf_counter() - began) * 1e3, 4))
        assert not found.stale
        assert sum(len(v.columns) for v in found.views) == 100 * len(GROUPS)
        assert all(v.states[0] == 1 for v in found.views), "every user has events"
    await rows.close()
    return out


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=1_000)


if __name__ == "__main__":
    world.run(__doc__ or "", NAME, measure, arguments)
