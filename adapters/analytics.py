"""The analytical store: ClickHouse over HTTP, a server or chDB behind the same protocol. No vendor driver.

Statements are sent with server-side parameters ({name:Type}), rows as JSON lines. The engine's errors become ours by
their code, so that "try again" and "this can never work" are told apart in the same way on every server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import httpx
import orjson

from adapters.errors import BadInput, MinimartError, Misconfigured, NotFound, Unavailable
from settings import Settings

DATABASE: Final = "minimart"
Row = Mapping[str, Any]

_UNKNOWN: Final = {60, 81}
_LOGIN: Final = {192, 193, 194, 516}
# Out of memory, disk, time, connections or parts; tables that are being loaded or dropped; networks below the engine.
_PASSING: Final = {74, 75, 159, 164, 202, 209, 210, 236, 241, 242, 243, 252, 279, 319, 394, 439, 473, 499, 999, 1000}
# What old servers do not do unless asked: numbers as numbers, the whole answer or an error, no waiting inserts.
_SETTINGS: Final = {"output_format_json_quote_64bit_integers": "0", "wait_end_of_query": "1", "async_insert": "0"}


class Store(Protocol):
    """What readers and writers of the analytical store need. Every method raises what `Analytics` raises."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a SELECT, by column name."""

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Write rows in one statement, all or none of them."""

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """A statement without rows in its answer."""


class Analytics:
    """A `Store` over HTTP. Safe to share between threads. Connects when first used."""

    def __init__(self, url: str, *, user: str = "default", password: str = "", database: str = DATABASE,
                 timeout_s: float = 10.0) -> None:
        self.url, self._database = url, database
        self._client = httpx.Client(
            base_url=url, timeout=httpx.Timeout(timeout_s, connect=min(2.0, timeout_s)), trust_env=False,
            headers={"X-ClickHouse-User": user, "X-ClickHouse-Key": password})

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows as JSON values: 64-bit integers as int, NaN and infinity as None, times as text in UTC.

        Raises Unavailable (away, too slow, out of memory), BadInput (the statement or a parameter is wrong; `detail`
        is the engine's message), NotFound (no such table or database), Misconfigured (user or password).
        """
        body = self._send(f"{sql.rstrip().rstrip(';')}\nFORMAT JSONEachRow", params, self._database)
        return [orjson.loads(line) for line in body.splitlines() if line]

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """One INSERT. NaN is written as null, so give a column that may hold it a Nullable type."""
        if rows:
            data = b"\n".join(map(_line, rows))
            self._send(b"INSERT INTO " + table.encode() + b" FORMAT JSONEachRow\n" + data, None, self._database)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        self._send(sql, params, self._database)

    def create_database(self) -> None:
        """Make the database this store is named for, if it is not there."""
        self._send(f"CREATE DATABASE IF NOT EXISTS {self._database}", None, "default")

    def ping(self) -> bool:
        """Whether something answers there; says nothing about user, password or tables."""
        try:
            return self._client.get("/ping", timeout=1.0).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._client.close()

    def _send(self, statement: str | bytes, params: Mapping[str, Any] | None, database: str) -> bytes:
        named = {f"param_{name}": literal(value) for name, value in (params or {}).items()}
        try:
            answer = self._client.post("/", params={"database": database, **_SETTINGS, **named}, content=statement)
        except httpx.HTTPError as error:
            raise Unavailable(f"ClickHouse at {self.url} did not answer: {error!r}") from None
        if answer.status_code == 200:
            return answer.content
        raise self._error(answer)

    def _error(self, answer: httpx.Response) -> MinimartError:
        text = answer.text.strip()[:2000] or f"HTTP {answer.status_code}"
        code = answer.headers.get("X-ClickHouse-Exception-Code", "0")
        number = int(code) if code.isdigit() else 0
        if number in _LOGIN or answer.status_code in (401, 403):
            return Misconfigured(f"ClickHouse at {self.url} refuses this user; set MINIMART_CLICKHOUSE_USER and "
                                 f"MINIMART_CLICKHOUSE_PASSWORD: {text[:200]}")
        if number in _PASSING or number == 0:
            return Unavailable(f"ClickHouse at {self.url}: {text}")
        return NotFound(text) if number in _UNKNOWN else BadInput(text)


class MemoryStore:
    """The fake: keeps what is inserted, answers a query by `answers[its text]`, and is away while `away` is set."""

    def __init__(self, answers: Mapping[str, Sequence[Row]] | None = None, tables: Sequence[str] = ()) -> None:
        """With `tables`, an insert into any other one raises NotFound; a query without an answer gives no rows."""
        self.rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}
        self.executed: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Sequence[Row]] = dict(answers or {})
        self.away = False
        self._closed_set = bool(tables)

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        self.execute(sql, params)
        return [dict(row) for row in self.answers.get(sql, ())]

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        if self.away:
            raise Unavailable("the fake store is away")
        if self._closed_set and table not in self.rows:
            raise NotFound(f"no table {table}")
        self.rows.setdefault(table, []).extend(orjson.loads(_line(row)) for row in rows)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        if self.away:
            raise Unavailable("the fake store is away")
        self.executed.append((sql, {name: literal(value) for name, value in (params or {}).items()}))


def open_store(settings: Settings, *, timeout_s: float = 10.0) -> Analytics:
    """The store that the settings name; connects to nothing yet."""
    return Analytics(settings.url("clickhouse"), user=settings.clickhouse_user, password=settings.clickhouse_password,
                     timeout_s=timeout_s)


def literal(value: Any) -> str:
    """A parameter as ClickHouse reads it from the address (text is escaped as in TSV). Raises BadInput."""
    match value:
        case bool():
            return str(int(value))
        case str():
            return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case list() | tuple():
            return "[" + ",".join(_quoted(v) if isinstance(v, str) else literal(v) for v in value) + "]"
        case None:
            return "\\N"
    raise BadInput(f"a parameter of type {type(value).__name__} ({value!r}) cannot be sent; use text, numbers or lists")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _line(row: Row) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise BadInput(f"a row cannot be sent as JSON: {error}") from None
