"""The controller's side of Redis: one lease, a fencing token that only rises, and the rollout's state under both.

A state is written only by whoever holds the lease with the newest token, checked and written in one step inside Redis.
Whoever was paused, lost the lease and wakes up is refused here, and its token is refused at the pointers as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import redis

from adapters.errors import Unavailable

LEASE: Final = "minimart:rollout:lease"
TOKEN: Final = "minimart:rollout:token"
STATE: Final = "minimart:rollout:state"

_ACQUIRE: Final = """
local held = redis.call('GET', KEYS[1])
if held then
  local token = string.match(held, '^(%d+):')
  if held ~= token .. ':' .. ARGV[1] then return 0 end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(token)
end
local token = redis.call('INCR', KEYS[2])
if token <= tonumber(ARGV[3]) then
  token = tonumber(ARGV[3]) + 1
  redis.call('SET', KEYS[2], token)
end
redis.call('SET', KEYS[1], token .. ':' .. ARGV[1], 'PX', ARGV[2])
return token
"""
_SAVE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RolloutStore(Protocol):
    """Where the state is kept. Every method raises Unavailable when the store does not answer."""

    def acquire(self, owner: str, ttl_ms: int, floor: int) -> int | None:
        """Take or renew the lease: the fencing token, or None while another owner holds it.

        A new token is above every one before and above `floor` (what the pointers hold), even if the store was lost.
        """

    def save(self, owner: str, token: int, state: bytes) -> bool:
        """Keep the state; false if the lease is not held with this token any more."""

    def load(self) -> bytes | None:
        """The state that was kept last."""

    def release(self, owner: str, token: int) -> None:
        """Give the lease back early."""


class RedisRolloutStore:
    """The real one."""

    def __init__(self, url: str, *, timeout_s: float = 1.0) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._acquire = self._redis.register_script(_ACQUIRE)
        self._save = self._redis.register_script(_SAVE)
        self._release = self._redis.register_script(_RELEASE)

    def acquire(self, owner: str, ttl_ms: int, floor: int) -> int | None:
        with _translated():
            return int(self._acquire(keys=[LEASE, TOKEN], args=[owner, ttl_ms, floor])) or None

    def save(self, owner: str, token: int, state: bytes) -> bool:
        with _translated():
            return bool(self._save(keys=[LEASE, STATE], args=[f"{token}:{owner}", state]))

    def load(self) -> bytes | None:
        with _translated():
            found = self._redis.get(STATE)
        return found if isinstance(found, bytes) else None

    def release(self, owner: str, token: int) -> None:
        with _translated():
            self._release(keys=[LEASE], args=[f"{token}:{owner}"])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(f"Redis did not answer the controller: {type(error).__name__}: {error}") from None
