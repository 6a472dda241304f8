"""An open-loop HTTP client: requests leave at times fixed beforehand, whatever the server does.

Latency counts from the *intended* time of sending, so a server that stalls is charged for everyone who had to wait.
The client speaks just enough HTTP/1.1 (keep-alive, Content-Length) to stay cheap: it shares the machine with what it
measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FAILED: Final = 0  # status of a request that got no answer
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Reply:
    """One request's fate: times in seconds from the start of the run; `status` FAILED without an answer."""

    intended_s: float
    done_s: float
    status: int
    body: bytes

    @property
    def latency_ms(self) -> float:
        return 1000 * (self.done_s - self.intended_s)


def poisson_times(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Arrival times in [0, seconds) of a Poisson process of `rate` per second."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, int(rate * seconds * 1.5) + 100)
    times = np.cumsum(gaps)
    return times[times < seconds]


async def drive(
    host: str, port: int, path: str, times: NDArray[np.float64], bodies: Sequence[bytes], *,
    timeout_s: float = 10.0, on_reply: Callable[[Reply], None] = lambda _: None,
) -> list[Reply]:
    """POST `bodies[i]` at `times[i]` and collect the replies, in order of sending."""
    pool = _Pool(host, port, path)
    start = time.perf_counter() + 0.05

    async def one(intended_s: float, body: bytes) -> Reply:
        status, answer = FAILED, b""
        try:
            async with asyncio.timeout(timeout_s):
                status, answer = await pool.post(body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            answer = str(error).encode() or type(error).__name__.encode()
        reply = Reply(intended_s, time.perf_counter() - start, status, answer)
        on_reply(reply)
        return reply

    tasks = []
    for intended_s, body in zip(times.tolist(), bodies, strict=True):
        wait = start + intended_s - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(intended_s, body)))
    replies = await asyncio.gather(*tasks)
    pool.close()
    return list(replies)


class _Pool:
    """Keep-alive connections, as many as are needed at once."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._host, self._port = host, port
        self._head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n".encode()
        self._idle: list[Connection] = []

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """(status, body) of one POST; a kept connection that the server closed meanwhile is replaced once."""
        if self._idle:
            try:
                return await self._exchange(self._idle.pop(), body)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
        return await self._exchange(await asyncio.open_connection(self._host, self._port), body)

    async def _exchange(self, connection: Connection, body: bytes) -> tuple[int, bytes]:
        reader, writer = connection
        try:
            writer.write(self._head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
            answer = await reader.readexactly(int(length.partition(":")[2]))
        except BaseException:
            writer.close()
            raise
        if "connection: close" in head:
            writer.close()
        else:
            self._idle.append(connection)
        return int(head.split(" ", 2)[1]), answer

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
