"""Which of the usual causes is it? Pure: two windows of figures are compared, and the causes they speak for are named.

In this order, because an earlier one explains the later ones: does data still come, are columns empty, do units and
schemas hold, was something deployed, is it one slice only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

UPSTREAMS: Final = ("impressions", "clicks", "carts", "orders")
ENOUGH: Final = 30  # events before a rate is believed
SILENT: Final = 0.3  # of the usual rate, while feeds go on
EMPTY: Final = 0.15  # more of a column empty than usual
CHEAP: Final = 0.2  # of the item's usual price: below it the unit is doubted
BROKEN: Final = 0.05  # share of clicks at such prices that is too much
REJECTED: Final = 0.02  # dead letters per event
SURE: Final = 3.0  # standard errors
SLOWER: Final = 1.5  # times the usual median, and
SLOWER_MS: Final = 15.0  # at least so much more
CAUSES: Final = ("silence", "nulls", "units", "schema", "deploy", "slice")


@dataclass(frozen=True)
class Served:
    """What one ranker version served: feeds, clicks on them, latency and degraded answers."""

    feeds: int
    clicks: int
    median_ms: float
    degraded: float


@dataclass(frozen=True)
class Look:
    """One window's figures. Shares are of all events of the window."""

    seconds: float
    events: Mapping[str, int] = field(default_factory=dict)
    empty: Mapping[str, float] = field(default_factory=dict)
    cheap: float = 0.0
    dead_letters: int = 0
    versions: Mapping[str, Served] = field(default_factory=dict)
    slices: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """`device=phone` -> (feeds, clicks)"""
    deployed: tuple[str, ...] = ()
    """Sentences of the rollouts' transitions in this window."""


@dataclass(frozen=True)
class Finding:
    """One cause that the figures speak for. `strength` orders findings of one kind."""

    cause: str
    what: str
    mitigation: str
    resolution: str
    strength: float = 1.0


def judge(now: Look, before: Look) -> list[Finding]:
    """The causes that the figures speak for, those that explain the others first. Empty: nothing is wrong."""
    found = [*_silence(now, before), *_nulls(now, before), *_units(now, before), *_schema(now, before),
             *_deploy(now, before), *_slice(now, before)]  # fmt: skip
    return sorted(found, key=lambda f: (CAUSES.index(f.cause), -f.strength))


def _silence(now: Look, before: Look) -> list[Finding]:
    def rate(look: Look, table: str) -> float:
        return look.events.get(table, 0) / look.seconds

    feeds = rate(now, "impressions") / max(rate(before, "impressions"), 1e-9)
    if before.events.get("impressions", 0) < ENOUGH or feeds < SILENT:
        return []
    quiet = {t: rate(now, t) / rate(before, t) for t in UPSTREAMS[1:]
             if before.events.get(t, 0) >= ENOUGH and rate(now, t) / rate(before, t) < SILENT}  # fmt: skip
    if not quiet:
        return []
    told = ", ".join(f"{t} at {share:.0%} of the usual rate" for t, share in quiet.items())
    return [Finding(
        "silence", f"an upstream is silent: {told}, while feeds go on at {feeds:.0%}",
        "hold retraining (no clicks would be learned as no interest); serving goes on with ageing features",
        "bring the upstream back; what it kept is sent again with its own event times and event ids, counted once",
        1 - min(quiet.values()),
    )]  # fmt: skip


def _nulls(now: Look, before: Look) -> list[Finding]:
    surge = {c: share - before.empty.get(c, 0.0) for c, share in now.empty.items()
             if share - before.empty.get(c, 0.0) > EMPTY}  # fmt: skip
    if not surge:
        return []
    told = ", ".join(f"{c} {before.empty.get(c, 0.0):.0%} -> {now.empty[c]:.0%}" for c in surge)
    return [Finding(
        "nulls", f"columns go missing: {told}",
        "hold retraining (a model would learn to do without the column); the ranker takes the values as missing",
        "the sender must send the columns again; then lift the hold", max(surge.values()),
    )]  # fmt: skip


def _units(now: Look, before: Look) -> list[Finding]:
    if now.cheap - before.cheap <= BROKEN:
        return []
    return [Finding(
        "units", f"prices in another unit: {now.cheap:.0%} of the clicks cost less than {CHEAP:.0%} of what the item "
                 f"usually costs ({before.cheap:.1%} before)",
        "hold retraining (price windows are poisoned)",
        "fix the sender's unit; price windows forget within 7 days, or rebuild them from the repaired log", now.cheap,
    )]  # fmt: skip


def _schema(now: Look, before: Look) -> list[Finding]:
    events, usual = sum(now.events.values()), sum(before.events.values())
    share, was = now.dead_letters / max(events, 1), before.dead_letters / max(usual, 1)
    if events < ENOUGH or share - was <= REJECTED:
        return []
    return [Finding(
        "schema", f"{share:.1%} of the events are dead letters ({was:.1%} before)",
        "hold retraining; nothing is lost, every rejected event lies in its dead-letter topic with its reason",
        "repair the sender, then make replay-dead-letters", share,
    )]  # fmt: skip


def _deploy(now: Look, before: Look) -> list[Finding]:
    found = []
    usual = _together(before.versions.values())
    for version, served in now.versions.items():
        old = before.versions.get(version)
        if (old is not None and old.feeds >= ENOUGH) or served.feeds < 10 or usual.feeds < ENOUGH:
            continue
        worse = []
        expected = usual.clicks / usual.feeds * served.feeds
        if expected > 0 and (served.clicks - expected) / np.sqrt(expected) < -SURE:
            was = usual.clicks / usual.feeds
            worse.append(f"{served.clicks / served.feeds:.2f} clicks a feed, usual are {was:.2f}")
        if served.median_ms > SLOWER * usual.median_ms and served.median_ms > usual.median_ms + SLOWER_MS:
            worse.append(f"median {served.median_ms:.0f} ms, usual are {usual.median_ms:.0f}")
        if served.degraded > usual.degraded + 0.2:
            worse.append(f"{served.degraded:.0%} of its answers degraded, usual are {usual.degraded:.0%}")
        if worse:
            found.append(Finding(
                "deploy", f"ranker {version} is new here and worse: {'; '.join(worse)}",
                "roll back to the version before",
                "leave it rolled back; audit and shadow scores say what the gate did not see", float(len(worse)),
            ))  # fmt: skip
    rolled = [told for told in now.deployed if "-> rolled_back" in told]
    if rolled and not found:
        found.append(Finding("deploy", f"a deploy was just rolled back: {rolled[-1]}", "already rolled back",
                             "leave it rolled back"))  # fmt: skip
    return found


def _together(versions: Iterable[Served]) -> Served:
    rows = [v for v in versions if v.feeds]
    feeds = sum(v.feeds for v in rows)
    if not feeds:
        return Served(0, 0, 0.0, 0.0)
    return Served(feeds, sum(v.clicks for v in rows), sum(v.median_ms * v.feeds for v in rows) / feeds,
                  sum(v.degraded * v.feeds for v in rows) / feeds)  # fmt: skip


def _slice(now: Look, before: Look) -> list[Finding]:
    """One slice loses clicks and the rest does not."""
    found = []
    for name, (feeds, clicks) in now.slices.items():
        was_feeds, was_clicks = before.slices.get(name, (0, 0))
        kind = name.partition("=")[0]
        others = [v for k, v in now.slices.items() if k != name and k.partition("=")[0] == kind]
        others_before = [v for k, v in before.slices.items() if k != name and k.partition("=")[0] == kind]
        if min(feeds, was_feeds) < ENOUGH or not others or not sum(v[1] for v in others_before):
            continue
        drop = _drop(clicks, feeds, was_clicks, was_feeds)
        rest = _drop(sum(v[1] for v in others), sum(v[0] for v in others), sum(v[1] for v in others_before),
                     sum(v[0] for v in others_before))  # fmt: skip
        if drop < -2 * SURE and rest > -1.0:
            found.append(Finding(
                "slice", f"only {name} loses clicks: {was_clicks / was_feeds:.2f} -> {clicks / feeds:.2f} a feed",
                "hold retraining until it is known why", "look at what this slice alone sees", -drop,
            ))  # fmt: skip
    return found


def _drop(clicks: int, feeds: int, was_clicks: int, was_feeds: int) -> float:
    """Change of the clicks a feed in standard errors; below zero is fewer."""
    if not feeds or not was_feeds or not was_clicks:
        return 0.0
    rate, was = clicks / feeds, was_clicks / was_feeds
    return float((rate - was) / np.sqrt(max(clicks, 1) / feeds**2 + was_clicks / was_feeds**2))
