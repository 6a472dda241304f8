"""The events that explain a wrong value: rows in its window, rows that were refused, and what would make it right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from pipelines.parity.brute_force import WINDOWS, BruteForce, Row, bounds
from pipelines.parity.compare import Mismatch

SHOWN: Final = 6  # events per kind
LONGEST_RUN: Final = 500  # rows that one lost commit may have held


def explain(brute: BruteForce, wrong: Mismatch) -> list[str]:
    """A mismatch in lines: the key, the window, the values, and the events."""
    asked, feature = wrong.asked, wrong.feature
    lines = [f"{feature['name']} of {asked.view} {'/'.join(asked.key)} at {when(asked.at_ms)}: {wrong.who} says "
             f"{wrong.value!r}, brute force {wrong.truth!r}"
             + "".join(f"; {who} {value!r}" for who, value in wrong.engines.items() if who != wrong.who)]
    if feature.get("window"):
        low, high = bounds(feature["window"], asked.at_ms)
        lines.append(f"window {feature['window']}: {when(low)} up to, not including, {when(high)}; tiles of "
                     f"{WINDOWS[feature['window']][1] // 60_000} min; what had arrived by then")
    if asked.upto is not None:
        lines.append("counted up to " + ", ".join(f"{t}:{p}@{end}" for (t, p), end in sorted(asked.upto.items())))
    kinds = sorted_rows(brute, wrong)
    lines += [f"suspect: {text}" for text in suspects(kinds, wrong)]
    for kind, rows in kinds.items():
        shown = rows[-SHOWN:]
        if rows:
            lines.append(f"{kind}: {len(rows)} rows" + (f", the last {len(shown)}:" if len(rows) > len(shown) else ""))
        lines += [f"  {_row(row)}" for row in shown]
    return lines


def sorted_rows(brute: BruteForce, wrong: Mismatch) -> dict[str, list[Row]]:
    """The rows of the feature's column by where they stand to the window."""
    asked, feature = wrong.asked, wrong.feature
    kinds: dict[str, list[Row]] = {
        "in the window": [], "just before the window": [], "after the window": [], "not there yet": [], "duplicate": [],
        "clock_ahead": [], "too_late": []}
    low, high = bounds(feature["window"], asked.at_ms) if feature.get("window") else (0, 1 << 62)
    near = WINDOWS[feature["window"]][1] if feature.get("window") else 0
    for row in brute.rows(asked.view, feature["column"], asked.key):
        if row.outcome != "counted":
            if low - near <= row.event_time < high + near:
                kinds[row.outcome].append(row)
        elif row.arrival > asked.at_ms or not _counted(row, asked.upto):
            kinds["not there yet"].append(row)
        elif low <= row.event_time < high:
            kinds["in the window"].append(row)
        elif low - near <= row.event_time < low:
            kinds["just before the window"].append(row)
        elif row.event_time >= high:
            kinds["after the window"].append(row)
    return kinds


def suspects(kinds: Mapping[str, list[Row]], wrong: Mismatch) -> list[str]:
    """Single events, whole kinds of them or runs of them whose coming or going would make the value what was seen; for
    sums and counts only, where that can be told."""
    if wrong.feature["function"] not in ("count", "sum"):
        return []
    off = float(wrong.value) - float(wrong.truth)

    def weight(row: Row) -> float:
        return float(row.value) if wrong.feature["function"] == "sum" else 1.0

    found = []
    for kind, rows in kinds.items():
        sign = -1.0 if kind == "in the window" else 1.0
        if rows and sum(map(weight, rows)) * sign == off and len(rows) > 1 and kind != "in the window":
            found.append(f"all {len(rows)} rows that are {kind} seem to be counted")
        single = [row for row in rows if weight(row) * sign == off]
        if single and len(found) < SHOWN:
            what = "seems not to be counted" if sign < 0 else f"is {kind} and seems to be counted"
            more = f" (or one of {len(single) - 1} others like it)" if len(single) > 1 else ""
            found.append(f"event {single[-1].event_id}{more} {what}")
    run = [] if found else _run(kinds["in the window"], weight, -off)
    if run:
        found.append(f"{len(run)} rows next to each other, such as {run[0].event_id} to {run[-1].event_id}, seem not "
                     "to be counted")
    return found


def _run(rows: list[Row], weight: Callable[[Row], float], missing: float) -> list[Row]:
    """Rows of one partition, next to each other in Kafka, that weigh as much as what is missing, if there are any."""
    places = sorted(rows, key=lambda row: (row.topic, row.partition, row.offset))
    for start, first in enumerate(places):
        held = 0.0
        for end, row in enumerate(places[start:start + LONGEST_RUN], start + 1):
            held += weight(row)
            if (row.topic, row.partition) != (first.topic, first.partition) or held > missing:
                break
            if held == missing:
                return places[start:end]
    return []


def when(ms: int) -> str:
    """A time as people read it, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%m-%d %H:%M:%S.") + f"{ms % 1000:03d}"


def _counted(row: Row, upto: Mapping[tuple[str, int], int] | None) -> bool:
    return upto is None or row.offset < upto.get((row.topic, row.partition), 0)


def _row(row: Row) -> str:
    return (f"{row.event_id}  {row.topic}:{row.partition}@{row.offset}  happened {when(row.event_time)}, arrived "
            f"{when(row.arrival)}, value {row.value!r}" + ("" if row.outcome == "counted" else f", {row.outcome}"))
