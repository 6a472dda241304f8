"""ClickHouse without Docker: its engine as a library (chDB) behind its own HTTP protocol, in one process.

    .venv/clickhouse/bin/python deploy/native/clickhouse_http.py --folder DIR --host 127.0.0.1 --port 8096

Speaks what ClickHouse's clients over HTTP use: GET and POST, the statement in ?query=, in the body or in both (the data
of an INSERT after its FORMAT), database=, default_format=, param_<name>= for {name:Type}, any other name as a setting
of this one query, user and password by header, basic authentication or address, gzip bodies, /ping. Not spoken: the
native protocol, sessions, compressed answers, more than one user. Needs chdb-core alone; standard library otherwise.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import gzip
import hmac
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

MAX_BODY = 64 << 20
CONNECTIONS = 4
WAIT_SECONDS = 10  # for a free connection
OF_HTTP = {"query", "database", "default_format", "user", "password", "wait_end_of_query", "query_id", "compress"}
STATUS = {"60": 404, "81": 404, "46": 404, "47": 404, "516": 403, "241": 500, "243": 500, "202": 503, "159": 504}
LIMITS = {"async_insert": 0, "max_execution_time": 30, "max_insert_threads": 1}
FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.I)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Refused(Exception):
    """A request that reaches no engine: HTTP status, ClickHouse's error code, what is wrong."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}")
        self.status, self.code = status, code


class Engine:
    """A few connections to the engine, each used by one query at a time."""

    def __init__(self, folder: Path, *, memory_mb: int, threads: int) -> None:
        import chdb  # heavy, and missing where there is no wheel

        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.xml"
        config.write_text(
            f"<clickhouse><max_server_memory_usage>{memory_mb << 20}</max_server_memory_usage>"
            f"<mark_cache_size>{32 << 20}</mark_cache_size>"
            f"<primary_index_cache_size>{32 << 20}</primary_index_cache_size>"
            "<background_pool_size>1</background_pool_size></clickhouse>\n"
        )
        address = f"{folder / 'data'}?config-file={quote(str(config))}&max_threads={threads}"
        self._free: queue.Queue[Any] = queue.Queue()
        limits = LIMITS | {"max_threads": threads, "max_memory_usage": (memory_mb << 20) * 3 // 4}
        for _ in range(CONNECTIONS):
            connection = chdb.connect(address)
            connection.query("SET " + ", ".join(f"{name} = {value}" for name, value in limits.items()))
            self._free.put(connection)

    def run(self, sql: str, database: str, form: str, parameters: dict[str, str], settings: dict[str, str]) -> bytes:
        """The answer's bytes. Raises Refused, or the engine's error with `Code: n` in its text."""
        with self._connection() as connection:
            connection.query(f"USE `{database}`")
            for name, value in settings.items():
                connection.query("SET {} = '{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'")))
            try:
                return bytes(connection.query(sql, form, params=parameters or None).bytes() or b"")
            finally:
                if settings:
                    connection.query("SET " + ", ".join(f"{name} = DEFAULT" for name in settings))

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            connection = self._free.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            text = f"Too many simultaneous queries: {CONNECTIONS} run, waited {WAIT_SECONDS} s"
            raise Refused(503, 202, text) from None
        try:
            yield connection
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Wait for what runs, then close."""
        for _ in range(CONNECTIONS):
            self._free.get(timeout=WAIT_SECONDS).close()


class Handler(BaseHTTPRequestHandler):
    """One request. `engine`, `user` and `password` are set on the class before it serves."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    engine: Engine
    user = "default"
    password = ""

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refused as refused:
            self._reply(refused.status, f"{refused}\n".encode(), code=str(refused.code))
        except Exception as error:  # noqa: BLE001 the engine's errors have no common base, and must become an answer
            found = re.search(r"Code: (\d+)", str(error))
            code = found[1] if found else "0"
            self._reply(STATUS.get(code, 400 if found else 500), f"{error}\n".encode(), code=code)

    do_POST = do_HEAD = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        asked = dict(parse_qsl(url.query, keep_blank_values=True))
        body = self._body()
        if url.path in ("/ping", "/replicas_status") or not (asked or body):
            return self._reply(200, b"Ok.\n")
        self._check_user(asked)
        sql = "\n".join(part for part in (asked.get("query", ""), body) if part)
        if not sql.strip():
            raise Refused(400, 62, "Syntax error: the query is empty; send it as ?query= or in the body")
        form = self.headers.get("X-ClickHouse-Format") or asked.get("default_format") or "TabSeparated"
        settings = {k: v for k, v in asked.items() if k not in OF_HTTP and not k.startswith("param_")}
        database = asked.get("database") or self.headers.get("X-ClickHouse-Database") or "default"
        for name in (*settings, database):
            if not NAME.fullmatch(name):
                raise Refused(400, 36, f"{name[:64]!r} is not a name of a setting or database")
        parameters = {k[6:]: v for k, v in asked.items() if k.startswith("param_")}
        out = self.engine.run(sql.strip().rstrip(";"), database, form, parameters, settings)
        named = FORMAT.search(sql)
        return self._reply(200, out, form=named[1] if named else form)

    def _body(self) -> str:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b"".join(self._chunks())
        else:
            size = int(self.headers.get("Content-Length") or 0)
            if size > MAX_BODY:
                self.close_connection = True
                raise Refused(413, 307, f"{size} bytes in one request; at most {MAX_BODY} are taken")
            data = self.rfile.read(size)
        try:
            if data and self.headers.get("Content-Encoding", "identity") == "gzip":
                data = gzip.decompress(data)
            return data.decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise Refused(400, 27, f"the body cannot be read: {error}; send UTF-8 text, plain or gzip") from None

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        while size := int(self.rfile.readline(100).split(b";")[0] or b"0", 16):
            total += size
            if total > MAX_BODY:
                self.close_connection = True
                raise Refused(413, 307, f"more than {MAX_BODY} bytes in one request")
            yield self.rfile.read(size)
            self.rfile.readline(100)
        self.rfile.readline(100)

    def _check_user(self, asked: dict[str, str]) -> None:
        user, key = asked.get("user", ""), asked.get("password", "")
        kind, _, packed = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                user, _, key = base64.b64decode(packed, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise Refused(403, 516, "the Authorization header cannot be read") from None
        user = user or self.headers.get("X-ClickHouse-User") or "default"
        key = key or self.headers.get("X-ClickHouse-Key", "")
        if user != self.user or not hmac.compare_digest(key.encode(), self.password.encode()):
            raise Refused(403, 516, f"{user[:64]}: Authentication failed: wrong password, or no such user")

    def _reply(self, status: int, body: bytes, *, form: str = "TabSeparated", code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if form.startswith("JSON") else "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Format", form)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Requests are not logged: they may hold what shoppers did."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where data and its configuration lie")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, default=1024, help="most memory of the engine; one query: 3/4 of it")
    parser.add_argument("--threads", type=int, default=2, help="threads of one query")
    asked = parser.parse_args()
    Handler.user = os.environ.get("CLICKHOUSE_USER") or "default"
    Handler.password = os.environ.get("CLICKHOUSE_PASSWORD", "")
    try:
        server = Server((asked.host, asked.port), Handler)
    except OSError as error:
        sys.exit(f"clickhouse: cannot listen on {asked.host}:{asked.port} ({error.strerror})")
    try:
        Handler.engine = Engine(asked.folder, memory_mb=asked.memory_mb, threads=asked.threads)
    except (RuntimeError, OSError) as error:
        sys.exit(f"clickhouse: cannot open {asked.folder} (does another one use it, is the disk full?): {error}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    print(f"clickhouse: answers on {asked.host}:{asked.port}", flush=True)
    server.serve_forever(poll_interval=0.2)
    server.server_close()
    Handler.engine.close()


if __name__ == "__main__":
    main()
