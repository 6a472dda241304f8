"""Whatever stands for the analytical store keeps one contract: the fake, and ClickHouse's engine behind HTTP."""

from __future__ import annotations

import base64
import contextlib
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adapters.analytics import Analytics, MemoryStore, Store, literal
from adapters.errors import BadInput, Misconfigured, NotFound, Unavailable
from pipelines.stack import clickhouse_server
from pipelines.stack.launch import CannotRun, free_ports, running

HOST = "127.0.0.1"
WHOLE = "SELECT id, n, x, xs FROM t ORDER BY id"
ROWS = [{"id": "a", "n": 2**60, "x": float("nan"), "xs": [0.5, float("nan")]}, {"id": "it's \\ é\n", "n": -1, "x": 1.5,
                                                                              "xs": []}]
READ = [{"id": "a", "n": 2**60, "x": None, "xs": [0.5, None]}, {"id": "it's \\ é\n", "n": -1, "x": 1.5, "xs": []}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A ClickHouse that asks for a user and a password."""
    folder = tmp_path_factory.mktemp("clickhouse")
    (port,) = free_ports(1)
    try:
        launch = clickhouse_server.launch(folder / "data", host=HOST, port=port, user="minimart", password="s'3 cret")
    except CannotRun as reason:
        pytest.skip(reason.detail)
    with running(launch, log=folder / "log", ready=lambda: clickhouse_server.ready(HOST, port)):
        yield f"http://{HOST}:{port}"


def real(server: str, **own: object) -> Analytics:
    return Analytics(server, **({"user": "minimart", "password": "s'3 cret", "database": "contract"} | own))  # type: ignore[arg-type]


@pytest.fixture(params=["fake", "clickhouse"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with an empty table t."""
    if request.param == "fake":
        fake = MemoryStore(tables=["t"])
        fake.answers[WHOLE] = fake.rows["t"]
        yield fake
        return
    store = real(request.getfixturevalue("server"))
    store.create_database()
    store.execute("CREATE OR REPLACE TABLE t (id String, n Int64, x Nullable(Float64), xs Array(Nullable(Float32))) "
                  "ENGINE = MergeTree ORDER BY id")
    yield store
    store.close()


def test_rows_come_back_as_json_values(store: Store) -> None:
    store.insert("t", ROWS)
    assert store.query(WHOLE) == READ


def test_no_rows_are_no_rows(store: Store) -> None:
    store.insert("t", [])
    assert store.query(WHOLE) == []


def test_an_unknown_table_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.insert("nowhere", [{"id": "a"}])


def test_a_parameter_of_another_kind_is_refused(store: Store) -> None:
    with pytest.raises(BadInput, match="set"):
        store.query(WHOLE, {"ids": {1, 2}})


@pytest.mark.parametrize("make", [lambda: away_fake(), lambda: Analytics("http://127.0.0.1:1")])
def test_a_store_that_is_away_is_unavailable(make: Callable[[], Store]) -> None:
    store = make()
    for call in (lambda: store.query(WHOLE), lambda: store.insert("t", ROWS), lambda: store.execute("SELECT 1")):
        with pytest.raises(Unavailable):
            call()


def away_fake() -> MemoryStore:
    store = MemoryStore()
    store.away = True
    return store


def test_parameters_arrive_as_they_were_given(server: str) -> None:
    values = {"text": "it's \\ a\ttab\nline é '; DROP", "texts": ["x'y", "\\", ""], "number": 2**62, "share": 0.25,
              "flag": True, "nothing": []}
    (row,) = real(server, database="default").query(
        "SELECT {text:String} AS text, {texts:Array(String)} AS texts, {number:Int64} AS number, "
        "{share:Float64} AS share, {flag:UInt8} AS flag, {nothing:Array(String)} AS nothing", values)
    assert row == values


def test_wrong_statements_say_what_is_wrong(server: str) -> None:
    store = real(server, database="default")
    with pytest.raises(BadInput, match="Unknown expression identifier"):
        store.query("SELECT nope")
    with pytest.raises(BadInput, match="Syntax error"):
        store.execute("SELEC 1")
    with pytest.raises(NotFound):
        store.query("SELECT * FROM nowhere")
    with pytest.raises(Unavailable, match="memory"):
        store.query("SELECT length(groupArray(number)) AS n FROM numbers(10000000) SETTINGS max_memory_usage = 5000000")


@pytest.mark.parametrize(("user", "password"), [("minimart", ""), ("minimart", "wrong"), ("root", "s'3 cret")])
def test_a_wrong_login_names_the_settings(server: str, user: str, password: str) -> None:
    with pytest.raises(Misconfigured, match="MINIMART_CLICKHOUSE_PASSWORD"):
        real(server, user=user, password=password).query("SELECT 1 AS x")


def test_the_protocol_as_other_clients_speak_it(server: str) -> None:
    """What curl, Grafana's plugin and clickhouse-connect use: GET, ?query=, body, basic authentication, formats."""
    with httpx.Client(base_url=server, auth=("minimart", "s'3 cret")) as client:
        assert client.get("/ping").text == "Ok.\n"
        assert client.get("/", params={"query": "SELECT 1, 'a'"}).text == "1\ta\n"
        assert client.post("/", content="SELECT 1 AS x FORMAT JSON").json()["data"] == [{"x": 1}]
        assert client.post("/", params={"query": "SELECT 2 AS x", "default_format": "CSV"}).text == "2\n"
        assert client.get("/", params={"query": "SELECT {a:Int8} + 1", "param_a": "41"}).text == "42\n"
        limited = {"query": "SELECT value FROM system.settings WHERE name = 'max_threads'"}
        assert client.get("/", params=limited | {"max_threads": "1"}).text == "1\n"
        assert client.get("/", params=limited).text == "2\n"  # a setting holds for one query
        chunked = client.post("/", params={"query": "SELECT 3"}, content=iter([b"", b" + 4"]))
        assert chunked.text == "7\n"
        refused = client.post("/", params={"query": "SELECT 1", "database": "a`b"})
        assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (400, "36")
        assert client.post("/", params={"database": "default"}).status_code == 400
        basic = base64.b64encode(b"no colon").decode()
        assert client.get("/?query=SELECT+1", headers={"Authorization": f"Basic {basic}"}, auth=None).status_code == 403
        assert client.get("/?query=SELECT+1", headers={"Authorization": "Basic %"}, auth=None).status_code == 403


def test_a_slow_question_does_not_hold_up_the_others(server: str) -> None:
    slow, quick = real(server, timeout_s=0.3), real(server, database="default")
    with contextlib.suppress(Unavailable):
        slow.query("SELECT sum(sleepEachRow(0.5)) AS x FROM numbers(4) SETTINGS max_block_size = 1")
    assert quick.query("SELECT 1 AS x") == [{"x": 1}]


def test_literals() -> None:
    assert literal(["a'b", "c"]) == "['a\\'b','c']"
    assert literal(None) == "\\N"
    with pytest.raises(BadInput):
        literal(float("inf"))


def test_addresses_do_not_carry_the_password(server: str, tmp_path: Path) -> None:
    seen: list[str] = []
    store = real(server)
    store._client.event_hooks = {"request": [lambda request: seen.append(urllib.parse.unquote(str(request.url)))]}
    store.query("SELECT 1 AS x")
    assert seen
    assert "cret" not in seen[0]
