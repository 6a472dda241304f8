"""How the platform is at this moment, in a few numbers from Prometheus: what one asks first when an alert comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import httpx

ASKED: Final[Mapping[str, str]] = {
    "parts that do not answer": "count(up == 0) or vector(0)",
    "feeds a second": 'sum(rate(minimart_http_requests_total{service="recommender",route="/v1/recommendations"}[1m]))',
    "P99 of a feed, seconds": (
        "histogram_quantile(0.99, sum by (le) (rate(minimart_http_request_seconds_bucket"
        '{service="recommender",route="/v1/recommendations"}[2m])))'
    ),
    "degraded answers a second": "sum(rate(minimart_degraded_total[1m])) or vector(0)",
    "events accepted a second": 'sum(rate(minimart_events_total{service="collector",outcome="accepted"}[1m]))',
    "age of the newest feature, seconds": "max(minimart_feature_age_seconds)",
    "records not yet consumed": "sum(minimart_consumer_lag_records)",
}
DEPLOYED: Final = "minimart_model_version_info == 1"


class Vitals:
    """Asks Prometheus at `url`; where it does not answer there is simply nothing to show."""

    def __init__(self, url: str, timeout_s: float = 2.0) -> None:
        self._client = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def __call__(self) -> str:
        """A Markdown table, or empty text where Prometheus does not answer."""
        try:
            rows = [(name, _number(self._ask(query))) for name, query in ASKED.items()]
            models = {f"model {one['metric']['model']}": one["metric"]["version"] for one in self._ask(DEPLOYED)}
        except (httpx.HTTPError, KeyError, ValueError):
            return ""
        lines = [f"| {name} | {value} |" for name, value in [*rows, *sorted(models.items())]]
        return "\n".join(["| what | value |", "|---|---|", *lines])

    def _ask(self, query: str) -> list[dict[str, dict[str, str]]]:
        answer = self._client.get("/api/v1/query", params={"query": query}).raise_for_status()
        return list(answer.json()["data"]["result"])

    def close(self) -> None:
        self._client.close()


def _number(result: list[dict[str, dict[str, str]]]) -> str:
    return f"{float(list(result[0]['value'])[1]):.4g}" if result else "no data"
