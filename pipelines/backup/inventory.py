"""What MLflow says it has, through its own API: runs, versions, aliases. Two inventories are compared key by key.

A run that is still being written is left out: it changes by itself.
"""

from __future__ import annotations

from typing import Any, Final

import httpx

from adapters.errors import Unavailable

API: Final = "/api/2.0/mlflow"
PAGE: Final = 500


def take(url: str) -> dict[str, Any]:
    """Everything by a readable key, e.g. `run <id>`, `version ranker/3`, `alias ranker@champion`. Raises Unavailable.

    `url` may carry a login (http://user:password@host:port).
    """
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            return _experiments(client) | _models(client)
    except httpx.HTTPError as error:
        raise Unavailable(f"MLflow did not answer: {type(error).__name__}") from None


def _experiments(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = {}
    experiments = _all(client, "experiments/search", "experiments", {"view_type": "ALL"})
    for one in experiments:
        found[f"experiment {one['name']}"] = {"id": one["experiment_id"], "stage": one["lifecycle_stage"]}
        asked = {"experiment_ids": [one["experiment_id"]], "run_view_type": "ALL"}
        for run in (one for one in _all(client, "runs/search", "runs", asked) if one["info"]["status"] != "RUNNING"):
            found[f"run {run['info']['run_id']}"] = {
                "status": run["info"]["status"],
                "artifacts": run["info"].get("artifact_uri", ""),
                **{kind: _pairs(run["data"].get(kind, [])) for kind in ("params", "metrics", "tags")},
            }
    return found


def _models(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in _all(client, "registered-models/search", "registered_models", {}, get=True):
        for alias in model.get("aliases", []):
            found[f"alias {model['name']}@{alias['alias']}"] = str(alias["version"])
    for one in _all(client, "model-versions/search", "model_versions", {}, get=True):
        key = f"version {one['name']}/{one['version']}"
        found[key] = {"source": one.get("source"), "run": one.get("run_id"), "tags": _pairs(one.get("tags", []))}
    return found


def _all(
    client: httpx.Client, path: str, key: str, asked: dict[str, Any], *, get: bool = False
) -> list[dict[str, Any]]:
    """Every page of a search."""
    out: list[dict[str, Any]] = []
    token = ""
    while True:
        body = {**asked, "max_results": PAGE, **({"page_token": token} if token else {})}
        answer = client.get(f"{API}/{path}", params=body) if get else client.post(f"{API}/{path}", json=body)
        page = answer.raise_for_status().json()
        out += page.get(key, [])
        if not (token := page.get("next_page_token", "")):
            return out


def _pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: entry.get("value") for entry in entries}
