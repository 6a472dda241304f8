"""The registry's aliases over MLflow's REST interface: light enough for a service, which must not import MLflow.

Only what a promotion or a rollback changes: the aliases champion, challenger and previous, and tags of versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from adapters.errors import Unavailable

MODELS: Final = ("two-tower", "preranker", "ranker")
_API: Final = "/api/2.0/mlflow"


class RegistryAliases:
    """Methods raise Unavailable when MLflow does not answer or refuses. Safe to call again with the same values."""

    def __init__(self, url: str, *, timeout_s: float = 1.5) -> None:
        """`url` may hold user and password."""
        self._client = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def up(self) -> bool:
        """Whether the server answers."""
        try:
            return self._client.get("/health", timeout=1.0).status_code == 200
        except httpx.HTTPError:
            return False

    def set(self, model: str, alias: str, version: str | None) -> None:
        """Point `alias` at `version` of `model`; None takes the alias away."""
        body = {"name": model, "alias": alias}
        if version is None:
            self._send("DELETE", "/registered-models/alias", body, missing_is_fine=True)
        else:
            self._send("POST", "/registered-models/alias", {**body, "version": version})

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        """Tag one version."""
        for key, value in tags.items():
            body = {"name": model, "version": version, "key": key, "value": value}
            self._send("POST", "/model-versions/set-tag", body)

    def close(self) -> None:
        self._client.close()

    def _send(self, method: str, path: str, body: dict[str, Any], *, missing_is_fine: bool = False) -> None:
        try:
            answer = self._client.request(method, _API + path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow did not answer: {type(error).__name__}: {error}") from None
        if answer.status_code >= 400 and not (missing_is_fine and answer.status_code in (400, 404)):
            raise Unavailable(f"MLflow refused {path} with {answer.status_code}: {answer.text[:200]}")
