"""Guardrails: is the canary doing harm, compared with the control of the same size that began at the same moment?

Five outcomes share one false alarm rate; clicks, which come soonest and in which most harm shows, have the most of it.
A click belongs to one answer, so clicks are compared with all answers of the champion's models since that moment, of
which the control's are a part: the same shoppers by chance, and many more of them. Besides them a gross guard needs
ten answers only: a challenger that degrades every other answer is out at once. Shadow traffic is judged without
outcomes: errors, lateness, dead scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from models.rollout.sequential import Sums, compare


class Metric(msgspec.Struct, frozen=True):
    """`bad` +1: more is worse. Margin and tau are relative to the control's ratio where `relative`, else absolute.
    `share` is the metric's part of the false alarm rate."""

    name: str
    bad: int
    margin: float
    tau: float
    share: float
    relative: bool = False


METRICS: Final = (
    Metric("clicks", -1, 0.02, 0.25, 0.6, relative=True),
    Metric("orders", -1, 0.05, 0.5, 0.1, relative=True),
    Metric("latency", 1, 0.25, 0.3, 0.1),  # mean of ln(milliseconds): 0.25 is 28 % slower
    Metric("degraded", 1, 0.02, 0.05, 0.1),
    Metric("dead_scores", 1, 0.005, 0.05, 0.1),
)
GROSS: Final = ("degraded", "dead_scores")
NOT_THE_MODELS: Final = ("redis_down", "features_late", "kafka_down")
"""Reasons for a degraded answer that no model can cause: the gross guard does not hold them against it."""
UNRANKED: Final = "rank_skipped"
"""Such an answer's scores are not the ranker's. It counts as degraded, never as one of dead scores."""


@dataclass(frozen=True)
class GuardConfig:
    """`alpha` bounds the share of good challengers that are ever rolled back by the five outcomes together."""

    alpha: float = 0.05
    least_users: int = 30
    """Shoppers per arm before the normal approximation is trusted."""
    least_outcomes: float = 20.0
    """Clicks or orders of both arms together before their ratio is judged."""
    gross_requests: int = 10
    gross_share: float = 0.5
    gross_p: float = 0.01
    """A share that the control's answers make this likely by chance is not the canary's fault."""
    shadow_errors: float = 0.02
    shadow_requests: int = 30
    """Nobody sees a shadow: what a cold start can cause is judged on more than `gross_requests`."""
    shadow_degraded: float = 0.2
    """More than the champion's share on the same requests."""
    shadow_dead: float = 0.02
    shadow_slower: float = 2.0
    """Times the champion's median on the same requests, and at least `shadow_slower_ms` more."""
    shadow_slower_ms: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.least_users < 2:
            raise ValueError(f"alpha in (0, 1) and least_users >= 2 are needed: {self}")


class Arms(msgspec.Struct, frozen=True):
    """What is known of both arms since the experiment began, and of the canary since this step did."""

    canary: dict[str, Sums] = {}
    control: dict[str, Sums] = {}
    champion: dict[str, Sums] = {}
    """Of everyone whom only the champion's models answered, the control among them: clicks alone, for what belongs to
    no single answer cannot be told apart for who moves from here into the canary."""
    step_requests: int = 0
    step_gross: dict[str, float] = {}
    """Share of this step's canary answers per gross guard; "degraded" only for what a model can cause."""
    step_control_requests: int = 0
    step_control: dict[str, float] = {}
    """The same of the control's answers in this step."""


class Shadow(msgspec.Struct, frozen=True):
    """Shadow scores since the experiment began: shares of `requests`, medians in milliseconds."""

    requests: int = 0
    errors: float = 0.0
    degraded: float = 0.0
    champion_degraded: float = 0.0
    dead_scores: float = 0.0
    median_ms: float = 0.0
    champion_median_ms: float = 0.0
    overlap: float = 0.0


@dataclass(frozen=True)
class Judged:
    """`breach` names the guard that is broken ("" none), `why` says it in figures; `figures` is for people."""

    breach: str = ""
    why: str = ""
    requests: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)


def judge(arms: Arms, config: GuardConfig) -> Judged:
    """Judge the canary."""
    figures: dict[str, Any] = {}
    breach, why = _gross(arms, config)
    for metric in METRICS:
        canary, control = arms.canary.get(metric.name), arms.champion.get(metric.name, arms.control.get(metric.name))
        if canary is None or control is None:
            continue
        scale = abs(control.ratio) if metric.relative and control.n else 1.0
        enough = min(canary.users, control.users) >= config.least_users and scale > 0
        if metric.relative and canary.y + control.y < config.least_outcomes:
            enough = False
        if not enough:
            figures[metric.name] = {"canary": _plain(canary.ratio), "control": _plain(control.ratio), "verdict": "wait"}
            continue
        alpha = config.alpha * metric.share
        found = compare(
            canary, control, bad=metric.bad, margin=metric.margin * scale, tau=metric.tau * scale, alpha=alpha
        )
        broken = found.e_value >= 1 / alpha
        figures[metric.name] = {
            "canary": _plain(found.canary), "control": _plain(found.control), "difference": _plain(found.value),
            "low": _plain(found.low), "high": _plain(found.high), "p": _plain(found.p),
            "verdict": "breach" if broken else "ok",
        }  # fmt: skip
        if broken and not breach:
            breach = metric.name
            other = "champion" if metric.name in arms.champion else "control"
            why = f"{metric.name}: canary {found.canary:.4g}, {other} {found.control:.4g}, p {found.p:.2g} at any time"
    counted = {f"{name}_requests": int(next(iter(arm.values())).n) if arm else 0
               for name, arm in (("canary", arms.canary), ("control", arms.control))}  # fmt: skip
    return Judged(breach, why, arms.step_requests, figures | counted | {"step_requests": arms.step_requests})


def judge_alone(arms: Arms, config: GuardConfig) -> Judged:
    """Judge where there is no control any more: the gross guards only."""
    breach, why = _gross(arms, config, alone=True)
    figures = {"step_requests": arms.step_requests, "gross": dict(arms.step_gross)}
    return Judged(breach, why, arms.step_requests, figures)


def judge_shadow(shadow: Shadow, config: GuardConfig) -> Judged:
    """Judge scores that nobody saw."""
    figures = {"shadow": msgspec.to_builtins(shadow)}
    breach, why = "", ""
    usual = shadow.champion_median_ms
    slower = shadow.median_ms > max(config.shadow_slower * usual, usual + config.shadow_slower_ms)
    warm = shadow.requests >= config.shadow_requests
    if shadow.requests >= config.gross_requests:
        if shadow.errors > config.shadow_errors:
            breach, why = "errors", f"{shadow.errors:.0%} of the shadow requests failed"
        elif shadow.dead_scores > config.shadow_dead:
            breach, why = "dead_scores", f"{shadow.dead_scores:.0%} of the shadow answers had constant or no scores"
        elif warm and shadow.degraded > config.shadow_degraded + shadow.champion_degraded:
            breach, usually = "degraded", f"{shadow.champion_degraded:.0%} of the champion's"
            why = f"{shadow.degraded:.0%} of the shadow answers were degraded, {usually}"
        elif warm and slower:
            breach, why = "latency", f"median {shadow.median_ms:.0f} ms, the champion's then {usual:.0f} ms"
    return Judged(breach, why, shadow.requests, figures)


def _gross(arms: Arms, config: GuardConfig, *, alone: bool = False) -> tuple[str, str]:
    """What is plain after a few answers. Against the control of the same seconds: a busy machine is nobody's fault."""
    n, m = arms.step_requests, arms.step_control_requests
    for name in GROSS:
        share, usual = arms.step_gross.get(name, 0.0), arms.step_control.get(name, 0.0)
        if n < config.gross_requests or share < config.gross_share:
            continue
        if alone:
            return name, f"{name}: {share:.0%} of {n} answers"
        if m and by_chance(round(share * n), n, round(usual * m), m) <= config.gross_p:
            return name, f"{name}: {share:.0%} of {n} canary answers, {usual:.0%} of the control's {m}"
    return "", ""


def by_chance(bad: int, n: int, control_bad: int, control_n: int) -> float:
    """Chance of at least `bad` of n answers, were both arms equally bad: Fisher's exact test, one-sided."""
    if not control_n:
        return 0.0
    all_bad, all_good = bad + control_bad, n + control_n - bad - control_bad
    whole = _log_choose(n + control_n, n)
    tail = (_log_choose(all_bad, k) + _log_choose(all_good, n - k) - whole
            for k in range(max(bad, n - all_good), min(n, all_bad) + 1))  # fmt: skip
    return min(1.0, sum(map(math.exp, tail)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
