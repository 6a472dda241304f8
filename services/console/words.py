"""Plain words for what the platform's machines say: states, moments, levels, shares. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

STEPS: Final[tuple[tuple[str, str], ...]] = (
    ("healthy", "Healthy"), ("drift_suspected", "Drift suspected"), ("retraining", "Retraining"), ("gated", "Gate"),
    ("shadow", "Shadow"), ("canary_5", "5 %"), ("canary_25", "25 %"), ("canary_50", "50 %"), ("canary_100", "100 %"),
    ("promoted", "Promoted"),
)  # fmt: skip
STATES: Final[Mapping[str, str]] = {
    "healthy": "The champion answers everybody. Nothing is being tried.",
    "drift_suspected": "The data looks different from what the champion learned from; one more look decides.",
    "retraining": "A challenger is being trained and gated.",
    "gated": "A challenger passed the gate and is about to be tried.",
    "shadow": "The challenger scores real requests beside the champion. Shoppers see the champion's answers.",
    "canary_5": "The challenger answers 5 % of the shoppers, judged against a control group of the same size.",
    "canary_25": "The challenger answers 25 % of the shoppers, judged against a control group of the same size.",
    "canary_50": "The challenger answers half of the shoppers, judged against the other half.",
    "canary_100": "The challenger answers everybody; the champion is still loaded, one step back.",
    "promoted": "The challenger is the champion now.",
    "rolled_back": "The challenger was dropped; the champion answers everybody.",
}
LEVELS: Final[Mapping[str, str]] = {
    "healthy": "good", "warn": "warn", "drift": "bad", "insufficient_data": "idle", "ok": "good",
}  # fmt: skip
SCENARIOS: Final[Mapping[str, str]] = {
    "taste_shift": "Tastes change", "traffic_mix": "Other shoppers come", "seasonal": "The season turns",
    "price_level": "Prices rise", "broken_units": "Prices in wrong units", "nulls": "A column goes missing",
    "silence": "Clicks go silent",
}  # fmt: skip
SHARE: Final = 0.5  # how strong a scenario's button is


def state(name: str) -> str:
    """What a state of the rollout means, in one sentence."""
    return STATES.get(name, name.replace("_", " "))


def level(name: str) -> str:
    """good, warn, bad or idle: the colour of a verdict."""
    return LEVELS.get(name, "idle")


def scenario(name: str) -> str:
    return SCENARIOS.get(name, name.replace("_", " ").capitalize())


def clock(ms: Any) -> str:
    """`13:05:07` of a time in ms since 1970, UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%H:%M:%S}" if isinstance(ms, int | float) and ms > 0 else "–"


def ago(ms: Any, now_ms: int) -> str:
    """`12 s`, `3 min`, `2 h`, `4 d` since a moment."""
    if not isinstance(ms, int | float) or ms <= 0:
        return "–"
    seconds = max(now_ms - ms, 0) / 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def rate(value: float | None) -> str:
    """A rate per second: 0, 0.4, 12, 3,400."""
    if value is None:
        return "–"
    if value < 0.005:
        return "0"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def figure(value: Any) -> str:
    """A number of unknown size, else the text itself."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return str(value)


def versions(found: Any) -> str:
    """`ranker 3, two-tower 2`; versions may stand alone or with their manifest."""
    if not isinstance(found, Mapping):
        return "none"
    plain = {name: v["version"] if isinstance(v, Mapping) else v for name, v in found.items()}
    shown = [f"{name} {plain[name]}" for name in ("ranker", "preranker", "two-tower") if name in plain]
    return ", ".join(shown) or ", ".join(f"{name} {version}" for name, version in plain.items()) or "none"
