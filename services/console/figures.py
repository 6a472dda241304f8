"""Rates and latencies of the running platform: from Prometheus where it is, else from what every part shows itself.

Both give the same thing: the rate per second of a counter, summed by some of its labels. Quantiles come from histogram
buckets by the usual linear interpolation (as Prometheus' histogram_quantile).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from services.console.neighbours import Neighbours

Labels = tuple[str, ...]
Rates = Mapping[Labels, float]
WINDOW: Final = "1m"
SCRAPED: Final = (
    "collector", "event_log", "stream_features", "recommender", "shop", "simulator", "analytics", "controller",
    "monitor",
)  # fmt: skip
ASKED: Final[Mapping[str, tuple[str, Labels]]] = {
    "requests": ("minimart_http_requests_total", ("service", "route")),
    "events": ("minimart_events_total", ("service", "outcome")),
    "answers": ("minimart_arm_answers_total", ("arm",)),
    "degraded": ("minimart_degraded_total", ("reason",)),
    "stages": ("minimart_stage_seconds_bucket", ("stage", "le")),
    "inferences": ("nv_inference_request_success", ("model", "version")),
}
"""What is asked: name -> (counter, the labels to sum by)."""


class Figures:
    """`now()` gives the rates of ASKED by name, and where they come from."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._before: tuple[float, dict[str, dict[Labels, float]]] | None = None

    async def now(self) -> tuple[dict[str, Rates], str]:
        """The rates, and their source in words (empty where there is none)."""
        asked = [self._prometheus(metric, by) for metric, by in ASKED.values()]
        found = await asyncio.gather(*asked)
        if all(rates is not None for rates in found):
            kept = {name: rates or {} for name, rates in zip(ASKED, found, strict=True)}
            return kept, f"Prometheus, over the last {WINDOW}"
        return await self._scraped()

    async def _prometheus(self, metric: str, by: Labels) -> Rates | None:
        query = f"sum by ({', '.join(by)}) (rate({metric}[{WINDOW}]))"
        answer = await self._neighbours.get("prometheus", "/api/v1/query", query=query)
        if not isinstance(answer.value, dict):
            return None
        rows = answer.value.get("data", {}).get("result", [])
        return {tuple(row["metric"].get(name, "") for name in by): float(row["value"][1]) for row in rows}

    async def _scraped(self) -> tuple[dict[str, Rates], str]:
        """The difference to the last look, divided by the time between."""
        answers = await asyncio.gather(*(self._neighbours.get(part, "/metrics") for part in SCRAPED))
        texts = [answer.value for answer in answers if isinstance(answer.value, str)]
        if not texts:
            self._before = None
            return {}, ""
        now, totals = time.monotonic(), _totals(texts)
        before, self._before = self._before, (now, totals)
        if before is None:
            return {}, "the parts themselves (the first look; rates come with the next)"
        passed = max(now - before[0], 1e-3)
        rates = {name: _risen(before[1][name], found, passed) for name, found in totals.items()}
        return dict(rates), f"the parts themselves, over {passed:.0f} s (Prometheus does not answer)"


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """The value below which `share` of the observations lie; None without observations. `buckets`: bound -> rate."""
    bounds = sorted(buckets)
    if not bounds or not math.isinf(bounds[-1]) or buckets[bounds[-1]] <= 0:
        return None
    wanted, below, lower = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if math.isinf(bound):
                return lower
            within = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / within if within else 1.0)
        below, lower = buckets[bound], bound
    return lower


def stages(rates: Rates) -> dict[str, dict[str, float]]:
    """Stage -> P50, P95 and P99 in milliseconds, from the rates of the buckets of its histogram."""
    buckets: dict[str, dict[float, float]] = {}
    for (stage, bound), rate in rates.items():
        buckets.setdefault(stage, {})[math.inf if bound == "+Inf" else float(bound)] = rate
    found = {}
    for stage, rises in buckets.items():
        values = {f"p{100 * share:.0f}": quantile(share, rises) for share in (0.5, 0.95, 0.99)}
        if all(value is not None for value in values.values()):
            found[stage] = {name: 1000 * value for name, value in values.items() if value is not None}
    return found


def _totals(texts: Sequence[str]) -> dict[str, dict[Labels, float]]:
    wanted = {metric: (name, by) for name, (metric, by) in ASKED.items()}
    totals: dict[str, dict[Labels, float]] = {name: {} for name in ASKED}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in wanted:
                    name, by = wanted[sample.name]
                    key = tuple(sample.labels.get(label, "") for label in by)
                    totals[name][key] = totals[name].get(key, 0.0) + sample.value
    return totals


def _risen(before: Mapping[Labels, float], now: Mapping[Labels, float], seconds: float) -> Rates:
    """Rises per second; a counter that fell began anew."""
    return {k: (v - before.get(k, 0.0) if v >= before.get(k, 0.0) else v) / seconds for k, v in now.items()}
