"""Many small Redis commands in one write and one wait: a single connection that all requests of a process share.

redis-py spends more on each command of a pipeline than Redis itself does. Here a pipeline is one buffer, and its
replies are parsed by hiredis in one go; requests of the same moment follow each other on the connection. A Redis that
does not answer in time loses the connection, so that nobody waits behind what will never come; the next call makes a
new one. Knows RESP and nothing of what is stored.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from adapters.errors import Unavailable
from settings import without_password

Replies = list[Any]


def command(*parts: bytes) -> bytes:
    """One command as Redis reads it."""
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(p), p) for p in parts]))


class RedisPipe:
    """Runs pipelines against `redis[s]://[user:password@]host[:port][/db]`; every wait ends after `timeout_s`."""

    def __init__(self, redis_url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = redis_url, timeout_s
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def run(self, commands: Sequence[bytes]) -> Replies:
        """The reply to each command, in order. Raises Unavailable when one fails or not all come in time."""
        if not commands:
            return []
        link = self._link
        try:
            async with asyncio.timeout(self._timeout_s):
                if link is None or link.lost:
                    link = await self._connect()
                replies = await link.ask(b"".join(commands), len(commands))
        except (OSError, TimeoutError, hiredis.HiredisError) as error:
            if link is not None:
                link.drop()
            raise self._away(repr(error)) from None
        failed = next((r for r in replies if isinstance(r, hiredis.ReplyError)), None)
        if failed is not None:
            raise self._away(str(failed))
        return replies

    async def close(self) -> None:
        if self._link is not None:
            self._link.drop()

    async def _connect(self) -> _Link:
        async with self._connecting:
            if self._link is not None and not self._link.lost:
                return self._link
            where = urlsplit(self._url)
            secure = ssl.create_default_context() if where.scheme == "rediss" else None
            _, made = await asyncio.get_running_loop().create_connection(
                _Link, where.hostname or "127.0.0.1", where.port or 6379, ssl=secure)
            link = made
            first = []
            if where.password:
                user = [unquote(where.username).encode()] if where.username else []
                first.append(command(b"AUTH", *user, unquote(where.password).encode()))
            first.append(command(b"SELECT", (where.path.strip("/") or "0").encode()))
            try:
                greeted = await link.ask(b"".join(first), len(first))
            except BaseException:
                link.drop()
                raise
            if refused := next((r for r in greeted if isinstance(r, hiredis.ReplyError)), None):
                link.drop()
                raise ConnectionError(str(refused))
            self._link = link
            return link

    def _away(self, why: str) -> Unavailable:
        return Unavailable(f"the online store at {without_password(self._url)} did not answer: {why}")


class _Link(asyncio.Protocol):
    """One connection: replies are handed out in the order of asking."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[int, Replies, asyncio.Future[Replies]]] = deque()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, payload: bytes, n: int) -> asyncio.Future[Replies]:
        """The next `n` replies, once all of them are here."""
        future: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()
        if self.lost or self._transport is None:
            future.set_exception(ConnectionError("the connection is lost"))
            return future
        self._waiting.append((n, [], future))
        self._transport.write(payload)
        return future

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
            while reply is not False and self._waiting:
                n, replies, future = self._waiting[0]
                replies.append(reply)
                if len(replies) == n:
                    self._waiting.popleft()
                    if not future.done():
                        future.set_result(replies)
                reply = self._reader.gets()
        except hiredis.HiredisError:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("Redis closed the connection"))

    def drop(self) -> None:
        """Close it now; whoever waits is told."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(ConnectionError("the connection was given up"))

    def _fail(self, error: Exception) -> None:
        self.lost = True
        while self._waiting:
            _, _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
