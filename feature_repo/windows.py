"""The one definition of time for features. Every reading (stream, SQL, brute force) is held to this file. Pure.

A window of length W with tiles of length g, read at time t, is the half-open range of whole tiles that starts at
floor((t - W) / g) * g, plus the open tile floor(t / g) * g with what is known at t. So it spans between W and W + g,
moves in steps of g, and decays as the clock moves, without new events. An event is known at t once it has arrived.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


class Window(NamedTuple):
    """A sliding window: its name in feature names, its length and the length of its tiles in milliseconds."""

    name: str
    length_ms: int
    tile_ms: int


WINDOWS: Final[dict[str, Window]] = {w.name: w for w in (
    Window("5m", 5 * MINUTE_MS, MINUTE_MS),
    Window("1h", HOUR_MS, MINUTE_MS),
    Window("24h", DAY_MS, HOUR_MS),
    Window("7d", 7 * DAY_MS, HOUR_MS),
    Window("30d", 30 * DAY_MS, DAY_MS),
)}

# The late rule compares an event with its own arrival, so every replay decides alike and no clock can close a window.
CLOCK_AHEAD_MS: Final = 5 * MINUTE_MS
TOO_LATE_MS: Final = 7 * DAY_MS

# An event id whose last sighting in its topic and partition arrived at most this many whole hours ago is a duplicate.
DEDUP_HOURS: Final = 24

_UNITS: Final = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}

Lateness = Literal["clock_ahead", "too_late"]


def tile_range(window: Window, now_ms: int) -> tuple[int, int]:
    """(first, last) tile index, both inclusive, that `window` covers at `now_ms`; tile i starts at i * tile_ms."""
    return (now_ms - window.length_ms) // window.tile_ms, now_ms // window.tile_ms


def lateness(event_time_ms: int, arrival_ms: int) -> Lateness | None:
    """Why an event may not be counted, or None: more than 5 minutes ahead of, or 7 days behind, its arrival."""
    if event_time_ms > arrival_ms + CLOCK_AHEAD_MS:
        return "clock_ahead"
    return "too_late" if event_time_ms < arrival_ms - TOO_LATE_MS else None


def duration_ms(text: str) -> int:
    """A duration such as 30m, 6h or 1d. Raises ValueError."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or int(number) == 0:
        raise ValueError(f"{text!r} is no duration; write a number above 0 and one of {', '.join(_UNITS)}, as in 6h")
    return int(number) * _UNITS[unit]


def duration_text(ms: int) -> str:
    """The duration in the largest unit that divides it."""
    unit = next(u for u in reversed(_UNITS) if ms % _UNITS[u] == 0)
    return f"{ms // _UNITS[unit]}{unit}"
