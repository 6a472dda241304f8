"""Triage at three in the morning: `make triage` asks the running platform which of the usual causes it is.

Reads the analytical store twice, now and a while before, into plain figures; `causes` compares them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console

from adapters.analytics import Store, open_store
from adapters.errors import MinimartError
from pipelines.drills.causes import CHEAP, UPSTREAMS, Finding, Look, Served, judge
from pipelines.drills.report import now_ms
from settings import Settings, load_settings

COLUMNS: Final = (
    ("impressions", "device"), ("impressions", "country"), ("clicks", "device"), ("clicks", "category"),
    ("decisions", "device"),
)  # fmt: skip


def look(
    store: Store, since_ms: int, until_ms: int, usual: tuple[int, int], *, versions_since_ms: int | None = None
) -> Look:
    """The figures of a window; prices are compared with those of the window `usual`. Raises MinimartError.

    What each version served is counted from `versions_since_ms` on: a new one answers few at first, and its answers
    tell the more the longer it is there.
    """
    span: dict[str, int | float] = {"since": since_ms, "until": until_ms}
    within = "event_ms >= {since:Int64} AND event_ms < {until:Int64}"
    events = {t: int(_one(store, f"SELECT count() AS n FROM {t} FINAL WHERE {within}", span, "n")) for t in UPSTREAMS}  # noqa: S608
    empty = {
        f"{t}.{c}": float(_one(store, f"SELECT avg({c} = '') AS n FROM {t} FINAL WHERE {within}", span, "n") or 0)  # noqa: S608
        for t, c in COLUMNS
    }
    dead = _one(store, "SELECT count() AS n FROM dead_letters WHERE lettered_ms >= {since:Int64} AND "
                       "lettered_ms < {until:Int64}", span, "n")  # fmt: skip
    return Look(
        (until_ms - since_ms) / 1000, events, empty, _cheap(store, span, usual), int(dead or 0),
        _versions(store, since_ms if versions_since_ms is None else versions_since_ms, until_ms),
        _slices(store, since_ms, until_ms), _deployed(store, span),
    )  # fmt: skip


def _one(store: Store, sql: str, span: Mapping[str, int | float], column: str) -> Any:
    rows = store.query(sql, span)
    return rows[0][column] if rows else 0


def _cheap(store: Store, span: Mapping[str, int | float], usual: tuple[int, int]) -> float:
    """Share of the clicks whose price is far below the item's median in the usual window."""
    sql = """
        SELECT avg(c.price_cents < {cheap:Float64} * u.price) AS n FROM
        (SELECT item_id, price_cents FROM clicks FINAL
         WHERE event_ms >= {since:Int64} AND event_ms < {until:Int64}) AS c
        INNER JOIN (SELECT item_id, quantileExact(0.5)(price_cents) AS price FROM clicks FINAL
                    WHERE event_ms >= {usual_since:Int64} AND event_ms < {usual_until:Int64} GROUP BY item_id) AS u
        ON c.item_id = u.item_id"""
    more: dict[str, int | float] = {"usual_since": usual[0], "usual_until": usual[1], "cheap": CHEAP}
    return float(_one(store, sql, {**span, **more}, "n") or 0.0)


def _versions(store: Store, since_ms: int, until_ms: int) -> dict[str, Served]:
    sql = f"""
        SELECT ranker_version AS version, count() AS feeds, sum(o.clicks) AS clicks,
               quantileExact(0.5)(total_ms) AS median, avg(notEmpty(degraded)) AS degraded
        FROM outcomes(since_ms = {int(since_ms)}, until_ms = {int(until_ms)}) AS o WHERE impressions > 0
        GROUP BY ranker_version"""  # noqa: S608
    return {
        str(r["version"]): Served(int(r["feeds"]), int(r["clicks"]), float(r["median"]), float(r["degraded"]))
        for r in store.query(sql)
    }


def _slices(store: Store, since_ms: int, until_ms: int) -> dict[str, tuple[int, int]]:
    """Feeds that were seen and clicks on them, by device and by country."""
    found: dict[str, tuple[int, int]] = {}
    for column in ("device", "country"):
        sql = f"""
            SELECT {column} AS slice, count() AS feeds, sum(o.clicks) AS clicks
            FROM outcomes(since_ms = {int(since_ms)}, until_ms = {int(until_ms)}) AS o WHERE impressions > 0
            GROUP BY {column}"""  # noqa: S608
        found |= {f"{column}={r['slice'] or '?'}": (int(r["feeds"]), int(r["clicks"])) for r in store.query(sql)}
    return found


def _deployed(store: Store, span: Mapping[str, int | float]) -> tuple[str, ...]:
    rows = store.query(
        "SELECT from_state, to_state, reason FROM rollouts WHERE event_ms >= {since:Int64} "
        "AND event_ms < {until:Int64} AND from_state != to_state ORDER BY event_ms", span,
    )  # fmt: skip
    return tuple(f"{r['from_state']} -> {r['to_state']}: {r['reason']}" for r in rows)


def figures(now: Look, before: Look) -> list[list[str]]:
    """Both windows side by side, as rows of a table."""
    rows = [[f"{t} a second", *(f"{w.events.get(t, 0) / w.seconds:.1f}" for w in (before, now))] for t in UPSTREAMS]
    rows += [[f"{c} empty", f"{before.empty.get(c, 0):.1%}", f"{now.empty.get(c, 0):.1%}"] for c in now.empty]
    rows.append(["clicks far below the usual price", f"{before.cheap:.1%}", f"{now.cheap:.1%}"])
    rows.append(["dead letters", str(before.dead_letters), str(now.dead_letters)])
    for version in sorted({*now.versions, *before.versions}):
        told = [_told(look_.versions.get(version)) for look_ in (before, now)]
        rows.append([f"ranker {version or 'none'}", *told])
    return rows


def _told(served: Served | None) -> str:
    if served is None or not served.feeds:
        return "-"
    return f"{served.feeds} feeds, {served.clicks / served.feeds:.2f} clicks, {served.median_ms:.0f} ms"


def triage(settings: Settings, console: Console, window_s: float) -> Sequence[Finding]:
    """Compare the last `window_s` seconds with as many before them, and print what is found."""
    store, until = open_store(settings), now_ms() - 5000
    middle = until - int(1000 * window_s)
    usual = (middle - int(1000 * window_s), middle)
    before, now = look(store, *usual, usual), look(store, middle, until, usual)
    for name, was, is_ in figures(now, before):
        console.print(f"  {name:34s} {was:>34s}  ->  {is_}", highlight=False)
    found = judge(now, before)
    for finding in found:
        console.print(f"[red]{finding.cause}[/]: {finding.what}", highlight=False)
        console.print(f"  now: {finding.mitigation}\n  then: {finding.resolution}", highlight=False)
    if not found:
        console.print("[green]nothing of the usual is wrong[/]")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Which of the usual causes is it? Exit 1 when one is found.")
    parser.add_argument("--window", type=float, default=300, help="seconds that are compared with as many before them")
    try:
        found = triage(load_settings(), Console(), parser.parse_args().window)
    except MinimartError as error:
        raise SystemExit(f"triage: {error.detail}") from None
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
