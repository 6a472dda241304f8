"""The client of Flink's SQL Gateway: what it asks, how long it waits, and what it makes of Flink's complaints."""

from __future__ import annotations

import json

import httpx
import pytest

from adapters.errors import BadInput, Unavailable
from adapters.flink import SqlGateway

# As the gateway of Flink 2.3.0 says it: a stack trace in a list of texts.
TRACE = ("<Exception on server side:\norg.apache.flink.table.gateway.api.utils.SqlGatewayException: Failed to "
         "fetchResults.\n\tat org.apache.flink.table.gateway.rest.handler.X(X.java:1)\nCaused by: "
         "org.apache.flink.table.gateway.service.utils.SqlExecutionException: Failed to execute the operation 1.\n"
         "\tat org.apache.flink.Y.y(Y.java:2)\nCaused by: org.apache.flink.table.api.ValidationException: The cast "
         "from TIMESTAMP_LTZ type to NUMERIC type is not allowed.\n\tat Z\n")


class Gateway:
    """Answers as Flink's gateway does; `states` are those that an operation goes through."""

    def __init__(self, *states: str, rows: list[list[object]] | None = None) -> None:
        self.states, self.rows = list(states), rows or []
        self.asked: list[str] = []
        self.statements: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v3")
        self.asked.append(f"{request.method} {path}")
        if path == "/sessions":
            return httpx.Response(200, json={"sessionHandle": "s"})
        if path == "/sessions/s/statements":
            self.statements.append(json.loads(request.content)["statement"])
            return httpx.Response(200, json={"operationHandle": "o"})
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        if path.endswith("/status"):
            return httpx.Response(200, json={"status": state})
        if state == "ERROR":
            return httpx.Response(500, json={"errors": ["Internal server error.", TRACE]})
        if state == "RUNNING":
            return httpx.Response(200, json={"resultType": "NOT_READY"})
        data = [{"kind": "INSERT", "fields": row} for row in self.rows]
        return httpx.Response(200, json={"resultType": "PAYLOAD", "results": {"data": data}})


def session(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> SqlGateway:
    monkeypatch.setattr("adapters.flink.POLL_S", 0.0)
    return SqlGateway("http://flink:8083/", transport=httpx.MockTransport(gateway))


def test_a_statement_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway("RUNNING", "RUNNING", "FINISHED", rows=[["OK"]])
    assert session(gateway, monkeypatch).run("SET 'a' = 'b'") == [["OK"]]
    assert gateway.statements == ["SET 'a' = 'b'"]


def test_a_job_is_watched_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway("PENDING", "RUNNING", "RUNNING", "FINISHED")
    asked: list[int] = []

    def enough() -> bool:
        asked.append(1)
        return len(asked) == 9

    one = session(gateway, monkeypatch)
    one.wait(one.submit("EXECUTE"), "EXECUTE", enough)
    assert len(asked) == 3
    one.close()
    assert gateway.asked[-1] == "DELETE /sessions/s"


def test_a_job_that_never_ends_is_left_when_enough_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    one = session(Gateway("RUNNING"), monkeypatch)
    seen = iter((False, False, True))
    one.wait(one.submit("EXECUTE"), "EXECUTE", lambda: next(seen))
    assert next(seen, None) is None


def test_flinks_complaint_is_its_innermost_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput) as found:
        session(Gateway("ERROR"), monkeypatch).run("SELECT CAST(t AS BIGINT) FROM x")
    assert found.value.detail == ("Flink refused SELECT CAST(t AS BIGINT) FROM x: ValidationException: The cast from "
                                  "TIMESTAMP_LTZ type to NUMERIC type is not allowed.")


def test_a_statement_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"did not finish in 0 s: EXPLAIN"):
        session(Gateway("RUNNING"), monkeypatch).run("EXPLAIN ...", timeout_s=0.0)


def test_a_gateway_that_is_away_is_unavailable() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unavailable, match=r"SQL Gateway at http://flink:8083 did not answer"):
        SqlGateway("http://flink:8083", transport=httpx.MockTransport(away))
