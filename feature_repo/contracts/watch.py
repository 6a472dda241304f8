"""Freshness and volume of a topic, judged by its contract. Pure: told what came when, and what time it is.

Volume: the last whole hour of arrival against the median of those of the `baseline_hours` before it in which anything
came; the hour in which the topic came to life is no whole hour. It is off when it differs by more than `tolerance` and
by more than chance explains: three deviations, where a deviation is the greater of Poisson's (the root of the median)
and the baseline's own (1.4826 times its median absolute deviation). So 10 % of 100 records is no finding, and of 10,000
it is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Final, NamedTuple

from feature_repo.contracts.contract import Contract
from feature_repo.contracts.findings import Finding, Level
from feature_repo.windows import HOUR_MS

SIGMAS: Final = 3.0
MAD_TO_SIGMA: Final = 1.4826


class Live(NamedTuple):
    """What came of a topic through Kafka: arrival of the newest record (None: none yet), and records by hour (ms)."""

    newest_ms: int | None
    hours: Mapping[int, int]
    since_ms: int = 0
    """The hour in which the first record came."""


class Volume(NamedTuple):
    """Records of the last whole hour, what the baseline expects (None: it cannot say), and how many hours it has."""

    records: int
    expected: float | None
    baseline_hours: int
    deviation: float = 0.0


def freshness(contract: Contract, live: Live, now_ms: int) -> Finding | None:
    """None where the contract promises no freshness."""
    if contract.freshness is None:
        return None
    most = contract.freshness.most_s
    promise = f"the newest record is at most {span(most)} old"
    if live.newest_ms is None:
        return Finding(kind="freshness", promise=promise, level=Level.INSUFFICIENT_DATA, detail="nothing came live yet")
    age = max(0.0, (now_ms - live.newest_ms) / 1000)
    level = Level.KEPT if age <= most else Level.BROKEN
    return Finding(kind="freshness", promise=promise, level=level, value=round(age, 1), detail=f"{span(age)} old")


def volume_of(contract: Contract, live: Live, now_ms: int) -> Volume:
    """The last whole hour and its baseline."""
    promised = contract.volume
    assert promised is not None
    hour = now_ms // HOUR_MS * HOUR_MS - HOUR_MS
    baseline = [n for at, n in live.hours.items()
                if n and hour - promised.baseline_hours * HOUR_MS <= at < hour and at > live.since_ms]  # fmt: skip
    records = live.hours.get(hour, 0)
    if len(baseline) < promised.least_hours or hour <= live.since_ms:
        return Volume(records, None, len(baseline))
    middle = float(median(baseline))
    spread = MAD_TO_SIGMA * median(abs(n - middle) for n in baseline)
    return Volume(records, middle, len(baseline), max(math.sqrt(middle), spread))


def volume(contract: Contract, live: Live, now_ms: int) -> Finding | None:
    """None where the contract promises no volume."""
    if contract.volume is None:
        return None
    promised, seen = contract.volume, volume_of(contract, live, now_ms)
    promise = f"an hour within {promised.tolerance:.0%} of the median of the {promised.baseline_hours} before"
    if seen.expected is None or seen.expected < promised.least_rows:
        why = f"{seen.baseline_hours} whole hours of baseline; {promised.least_hours} are needed"
        if seen.expected is not None:
            why = f"{seen.expected:,.0f} records an hour; {promised.least_rows} are needed"
        return Finding(kind="volume", promise=promise, level=Level.INSUFFICIENT_DATA, detail=why)
    off = seen.records - seen.expected
    beyond = abs(off) > promised.tolerance * seen.expected and abs(off) > SIGMAS * seen.deviation
    said = f"{seen.records:,} records, {seen.expected:,.0f} expected ({off / seen.expected:+.0%})"
    level = Level.WARN if beyond else Level.KEPT
    return Finding(kind="volume", promise=promise, level=level, value=off / seen.expected, detail=said)


def span(seconds: float) -> str:
    """A length of time as people say it: 5 s, 10 min, 1.5 h, 7 d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds:.0f} s"
