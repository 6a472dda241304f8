"""The online store as the feature server reads it: rows of many views in one pipeline, and whether the store is whole.

A Redis that came back empty, or is being rebuilt, answers as well; but what it lacks proves nothing then. It holds the
feature set whole once the last partition's progress says so (`feature_rebuild.py` writes that last).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from adapters import feast_redis
from adapters.errors import Unavailable
from adapters.feast_redis import Plain
from adapters.online_store import Key, tiles_command
from adapters.redis_pipe import RedisPipe, command
from feature_repo.plan import FeaturePlan

_HGET: Final = b"HGET"


class Attributes(NamedTuple):
    """A row of plain Feast fields, in the order of the view's; None where a field has no value."""

    at_ms: int
    values: tuple[Plain | None, ...]


Stored = bytes | Attributes
"""A row: packed tiles, or plain fields."""


class Found(NamedTuple):
    """`rows` per view asked, in order of its keys, None where there is nothing; `whole`: nothing then means nothing."""

    rows: list[list[Stored | None]]
    whole: bool


class Rows(Protocol):
    """What the feature server asks of the online store."""

    async def read(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> Found:
        """The rows per (view, keys). Raises Unavailable."""

    async def close(self) -> None: ...


class OnlineRows:
    """Rows in Feast's Redis layout; `timeout_ms` bounds every read, connecting included."""

    def __init__(self, redis_url: str, plan: FeaturePlan, *, partitions: int, timeout_ms: float = 50) -> None:
        self._pipe = RedisPipe(redis_url, timeout_ms / 1000)
        self._whole = command(_HGET, b"minimart:progress:%d" % (partitions - 1), b"plan")
        self._feature_set = plan.sha256.encode()
        self._views = {v.name: _View(tiles_command(plan.project, v), feast_redis.bytes_of)  # type: ignore[arg-type]
                       for v in plan.declared_views}
        self._views |= {v.name: _attributes_of(plan.project, v.name, v.join_keys, tuple(v.fields))
                        for v in plan.attribute_views}

    async def read(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> Found:
        commands = [self._whole]
        for name, keys in asked:
            commands += map(self._views[name].ask, keys)
        replies = iter(await self._pipe.run(commands))
        whole = next(replies) == self._feature_set
        rows = []
        for name, keys in asked:
            parse = self._views[name].parse
            rows.append([parse(next(replies)) for _ in keys])
        return Found(rows, whole)

    async def close(self) -> None:
        await self._pipe.close()


class MemoryRows:
    """The fake: `stored[view][key]`; `down` makes it Unavailable, `whole` says whether it claims to hold everything."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[Key, Stored]] = {}
        self.down, self.whole = False, True

    async def read(self, asked: Sequence[tuple[str, Sequence[Key]]]) -> Found:
        if self.down:
            raise Unavailable("the online store is down")
        return Found([[self.stored.get(view, {}).get(key) for key in keys] for view, keys in asked], self.whole)

    async def close(self) -> None:
        """Nothing to release."""


class _View(NamedTuple):
    ask: Callable[[Key], bytes]
    parse: Callable[[object], Stored | None]


def _attributes_of(project: str, view: str, join_keys: tuple[str, ...], fields: tuple[str, ...]) -> _View:
    make = feast_redis.key_maker(project, join_keys)
    names = [feast_redis.time_field(view), *(feast_redis.field(view, f) for f in fields)]

    def parse(reply: object) -> Stored | None:
        assert isinstance(reply, list)
        at_ms = feast_redis.moment_of(reply[0])
        return None if at_ms is None else Attributes(at_ms, tuple(map(feast_redis.plain_of, reply[1:])))

    return _View(lambda key: command(b"HMGET", make(key), *names), parse)
