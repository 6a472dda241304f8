"""Flink's SQL Gateway over HTTP: open a session, run statements, wait for a job. Vendor errors stay in this file.

The gateway may be the one that `pipelines/flink` starts on this machine or any other: where the job runs is the
gateway's setting, not ours. A gateway asks for no login: on this machine it listens on loopback only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx

from adapters.errors import BadInput, Unavailable

POLL_S: Final = 0.5
PATIENCE_S: Final = 120.0
_CAUSE: Final = re.compile(r"Caused by: (?:[\w.$]+\.)?([\w$]+: [^\n]+)")


class SqlGateway:
    """One session of a SQL Gateway. Every method raises Unavailable when the gateway does not answer in time."""

    def __init__(self, url: str, *, timeout_s: float = 60.0, transport: httpx.BaseTransport | None = None) -> None:
        """`transport` stands in for the network in tests."""
        self._url = url.rstrip("/")
        self._http = httpx.Client(base_url=f"{self._url}/v3", timeout=timeout_s, transport=transport)
        self._session = str(self._call("POST", "/sessions", {"properties": {}})["sessionHandle"])

    def run(self, statement: str, *, timeout_s: float = PATIENCE_S) -> list[list[Any]]:
        """Run one statement to its end; returns the rows of its first page. Raises BadInput with Flink's complaint."""
        return self.result(self.submit(statement), statement, timeout_s=timeout_s)

    def run_all(self, statements: Sequence[str], *, timeout_s: float = PATIENCE_S) -> None:
        for statement in statements:
            self.run(statement, timeout_s=timeout_s)

    def submit(self, statement: str) -> str:
        """Begin a statement; returns its handle."""
        answer = self._call("POST", f"/sessions/{self._session}/statements", {"statement": statement})
        return str(answer["operationHandle"])

    def running(self, handle: str) -> bool:
        """Whether a statement has not ended yet, well or badly."""
        status = self._call("GET", f"/sessions/{self._session}/operations/{handle}/status")["status"]
        return status in ("INITIALIZED", "PENDING", "RUNNING")

    def result(self, handle: str, statement: str, *, timeout_s: float = PATIENCE_S) -> list[list[Any]]:
        deadline = time.monotonic() + timeout_s
        path = f"/sessions/{self._session}/operations/{handle}/result/0?rowFormat=JSON"
        while True:
            answer = self._call("GET", path, statement=statement)
            if answer.get("resultType") != "NOT_READY":
                return [row["fields"] for row in answer["results"]["data"]]
            if time.monotonic() > deadline:
                raise Unavailable(f"Flink at {self._url} did not finish in {timeout_s:.0f} s: {_short(statement)}")
            time.sleep(POLL_S)

    def wait(self, handle: str, statement: str, enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until a submitted statement has ended, or until `enough`, asked twice a second, says that it may go on
        alone. Raises BadInput when it failed."""
        while self.running(handle):
            if enough():
                return
            time.sleep(POLL_S)
        self.result(handle, statement)

    def close(self) -> None:
        """End the session; a job that runs goes on."""
        try:
            self._http.delete(f"/sessions/{self._session}", timeout=5.0)
        except httpx.HTTPError:
            pass
        finally:
            self._http.close()

    def _call(self, method: str, path: str, body: Any = None, *, statement: str = "") -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(f"Flink's SQL Gateway at {self._url} did not answer: {error!r}") from None
        if answer.is_error:
            raise BadInput(f"Flink refused {_short(statement) if statement else path}: {_complaint(answer.text)}")
        return answer.json()


def _complaint(text: str) -> str:
    """The innermost cause of a Java stack trace in JSON; the end of the text where there is none."""
    causes: list[str] = _CAUSE.findall(text.replace("\\n", "\n").replace("\\t", "\t"))
    return causes[-1].strip() if causes else text[-500:]


def _short(statement: str) -> str:
    one_line = " ".join(statement.split())
    return one_line if len(one_line) < 80 else f"{one_line[:77]}..."
