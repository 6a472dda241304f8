"""The stream worker's side of Redis: tiles, offsets and seen event ids of one partition, committed as one.

    minimart:owner:<p>               token of the worker that owns partition p; every commit is refused to any other
    minimart:progress:<p>            hash: `offset:<topic>` next to read, `source:<topic>:<q>` next source offset that
                                     stage 2 of p expects from partition q, `hour:<topic>` newest hour of sightings,
                                     `plan` the feature set of these tiles
    minimart:counters:<p>            hash: `<topic>:<outcome>` records by what became of them
    minimart:seen:<topic>:<p>:<hour> 64-bit hashes of the event ids sighted in that hour of arrival

Tiles lie in Feast's layout (`feast_redis.py`). Redis is a rebuildable cache: the truth is Kafka and the lake.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from adapters import feast_redis
from adapters.errors import MinimartError, Unavailable
from adapters.online_store import SNAPSHOT_ENTITY, WRITTEN, Key, connect, touched_key
from feature_repo.plan import FeaturePlan
from feature_repo.windows import DEDUP_HOURS, HOUR_MS
from settings import without_password

SEEN_SECONDS: Final = (DEDUP_HOURS + 2) * HOUR_MS // 1000
REBUILD_LOCK: Final = "minimart:rebuild"
MEMBERS_AT_ONCE: Final = 1_000
Command = tuple[Any, ...]

# One command instead of thousands: redis-py spends more on each command of a pipeline than Redis itself does.
# KEYS: who owns what; ARGV: the tokens that they should hold, then commands, each after the number of its parts.
# Returns the number of the first owner who is another one, and has written nothing then; 0 if all was written.
_COMMIT: Final = """
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) ~= ARGV[i] then return i end
end
local at = #KEYS + 1
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
return 0
"""
# KEYS: hashes; ARGV: the field that is read of each.
_READ: Final = """
local found = {}
for i = 1, #KEYS do found[i] = redis.call('HGET', KEYS[i], ARGV[i]) end
return found
"""


class Fenced(MinimartError):
    """Another worker owns this partition, or Redis lost who does: drop what is not committed and start again."""

    title = "Fenced"


@dataclass
class Progress:
    """Where a partition stands. `seen` maps topic -> event id hash -> hour of arrival of the last sighting."""

    offsets: dict[str, int] = field(default_factory=dict)
    sources: dict[tuple[str, int], int] = field(default_factory=dict)
    seen: dict[str, dict[int, int]] = field(default_factory=dict)


@dataclass
class Batch:
    """What one commit of a partition changes: (view, key) -> packed tiles, (topic, hour) -> event id hashes, ..."""

    partition: int
    token: str
    states: dict[tuple[str, Key], bytes] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    sources: dict[tuple[str, int], int] = field(default_factory=dict)
    sighted: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    newest_hours: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)


def _seen_keys(topic: str, partition: int, newest: int) -> list[str]:
    """The keys of sightings that matter while `newest` is the newest hour, oldest first."""
    return [f"minimart:seen:{topic}:{partition}:{hour}" for hour in range(newest - DEDUP_HOURS - 1, newest + 1)]


class FeatureState:
    """Reads and commits of the stream worker; every method raises Unavailable when Redis does not answer in time."""

    def __init__(self, redis_url: str, plan: FeaturePlan, timeout_s: float = 5.0) -> None:
        self._plan, self._url = plan, redis_url
        self._client = connect(redis_url, timeout_s)
        self._write, self._read = self._client.register_script(_COMMIT), self._client.register_script(_READ)
        self._keys = {v.name: feast_redis.key_maker(plan.project, v.join_keys) for v in plan.declared_views}

    def claim(self, partition: int) -> str:
        """Become the owner of a partition; returns the token that fences every other worker off."""
        token = uuid.uuid4().hex
        with self._translated():
            self._client.set(f"minimart:owner:{partition}", token)
        return token

    def load(self, partition: int) -> Progress | None:
        """Where the partition stands; None if Redis does not know, or holds tiles of another feature set."""
        with self._translated():
            raw = self._client.hgetall(f"minimart:progress:{partition}")
            stored = {k.decode(): v.decode() for k, v in raw.items()}
            if stored.pop("plan", None) != self._plan.sha256:
                return None
            progress = Progress()
            for name, number in stored.items():
                kind, _, rest = name.partition(":")
                if kind == "offset":
                    progress.offsets[rest] = int(number)
                elif kind == "hour":
                    progress.seen[rest] = self._load_seen(rest, partition, int(number))
                else:
                    topic, _, source = rest.rpartition(":")
                    progress.sources[topic, int(source)] = int(number)
        return progress

    def states(self, wanted: Iterable[tuple[str, Key]]) -> list[bytes | None]:
        """Packed tiles of (view, key) pairs, in order."""
        names, fields = [], []
        for view, key in wanted:
            names.append(self._keys[view](key))
            fields.append(self._field(view))
        with self._translated():
            return [feast_redis.bytes_of(message) for message in self._read(names, fields)] if names else []

    def commit(self, batches: list[Batch], now_ms: int) -> None:
        """States, offsets, sightings and counters of several partitions in one transaction.

        Raises Fenced, with nothing written, unless each partition still belongs to its batch's token.
        """
        owners = [f"minimart:owner:{batch.partition}" for batch in batches]
        commands = [command for batch in batches for command in self._commands(batch, now_ms)]
        with self._translated():
            lost = self._write(owners, [*(batch.token for batch in batches), *_counted(commands)])
        if lost:
            raise Fenced(f"partition {batches[lost - 1].partition} belongs to another worker")

    def counters(self, partitions: int) -> dict[str, int]:
        """`<topic>:<outcome>` summed over partitions."""
        total: dict[str, int] = {}
        with self._translated():
            for partition in range(partitions):
                for key, number in self._client.hgetall(f"minimart:counters:{partition}").items():
                    total[key.decode()] = total.get(key.decode(), 0) + int(number)
        return total

    def account(self, partition: int) -> tuple[dict[str, int], dict[str, int]]:
        """Of one moment: (topic -> next offset to read, `<topic>:<outcome>` -> records) of a partition."""
        with self._translated(), self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(f"minimart:progress:{partition}")
            pipe.hgetall(f"minimart:counters:{partition}")
            progress, counters = pipe.execute()
        offsets = {k.decode()[7:]: int(v) for k, v in progress.items() if k.startswith(b"offset:")}
        return offsets, {k.decode(): int(v) for k, v in counters.items()}

    def standing(self, partition: int) -> Progress:
        """Offsets and sources of a partition, without its sightings: what a reader needs to know what was counted."""
        progress = Progress()
        with self._translated():
            for raw, number in self._client.hgetall(f"minimart:progress:{partition}").items():
                kind, _, rest = raw.decode().partition(":")
                topic, _, source = rest.rpartition(":")
                if kind == "offset":
                    progress.offsets[rest] = int(number)
                elif kind == "source":
                    progress.sources[topic, int(source)] = int(number)
        return progress

    def written(self) -> dict[str, int]:
        """When (ms) any key of each view was last written; views that never were are left out."""
        with self._translated():
            return {view.decode(): int(ms) for view, ms in self._client.hgetall(WRITTEN).items()}

    def put(self, states: Mapping[tuple[str, Key], bytes], now_ms: int) -> None:
        """Write tiles outside a commit: rebuilding and materialising only."""
        with self._translated():
            self._write([], list(_counted(self._states(states, now_ms))))

    def put_attributes(self, view: str, join_keys: tuple[str, ...], rows: Iterable[tuple[Key, int, dict[str, Any]]]
                       ) -> None:
        """Write plain Feast rows: (key, time in ms, feature -> value)."""
        pipe = self._client.pipeline(transaction=False)
        for key, at_ms, values in rows:
            mapping = {feast_redis.field(view, name): feast_redis.value(v) for name, v in values.items()}
            mapping[feast_redis.time_field(view)] = feast_redis.timestamp(at_ms)
            pipe.hset(feast_redis.redis_key(self._plan.project, join_keys, key), mapping=mapping)
        with self._translated():
            pipe.execute()

    def forget(self, partitions: int) -> None:
        """Take every partition from its owner and all it knew from Redis, as the first step of a rebuild."""
        gone: list[str] = []
        with self._translated():
            for partition in range(partitions):
                gone += [f"minimart:{what}:{partition}" for what in ("owner", "progress", "counters")]
                for name, number in self._client.hgetall(f"minimart:progress:{partition}").items():
                    kind, _, topic = name.decode().partition(":")
                    if kind == "hour":
                        gone += _seen_keys(topic, partition, int(number))
            self._client.delete(*gone)

    def restart_from(self, batch: Batch) -> None:
        """Set a forgotten partition's progress, counters and sightings, as the last step of a rebuild."""
        with self._translated():
            self._write([], list(_counted(self._commands(batch, 0))))

    def lock_rebuild(self, token: str, seconds: int) -> bool:
        """Take (or, with the token that holds it, prolong) the lock under which one worker rebuilds."""
        with self._translated():
            if self._client.set(REBUILD_LOCK, token, nx=True, ex=seconds):
                return True
            if self._client.get(REBUILD_LOCK) == token.encode():
                self._client.expire(REBUILD_LOCK, seconds)
                return True
            return False

    def unlock_rebuild(self, token: str) -> None:
        with self._translated():
            if self._client.get(REBUILD_LOCK) == token.encode():
                self._client.delete(REBUILD_LOCK)

    def ping(self) -> None:
        with self._translated():
            self._client.ping()

    def close(self) -> None:
        self._client.close()

    def _field(self, view: str) -> bytes:
        return feast_redis.field(view, self._plan.view(view).stored)

    def _load_seen(self, topic: str, partition: int, newest: int) -> dict[int, int]:
        seen: dict[int, int] = {}
        names = _seen_keys(topic, partition, newest)
        for name, hashes in zip(names, self._client.mget(names), strict=True):
            seen.update(dict.fromkeys((h for (h,) in struct.iter_unpack("<Q", hashes or b"")),
                                      int(name.rpartition(":")[2])))
        return seen

    def _commands(self, batch: Batch, now_ms: int) -> Iterator[Command]:
        yield from self._states(batch.states, now_ms)
        progress: dict[str, int | str] = {f"offset:{topic}": n for topic, n in batch.offsets.items()}
        progress |= {f"source:{topic}:{source}": n for (topic, source), n in batch.sources.items()}
        progress |= {f"hour:{topic}": hour for topic, hour in batch.newest_hours.items()}
        for (topic, hour), hashes in batch.sighted.items():
            name = f"minimart:seen:{topic}:{batch.partition}:{hour}"
            yield "APPEND", name, struct.pack(f"<{len(hashes)}Q", *hashes)
            yield "EXPIRE", name, SEEN_SECONDS
        written = progress | {"plan": self._plan.sha256}
        yield "HSET", f"minimart:progress:{batch.partition}", *(part for pair in written.items() for part in pair)
        for name, number in batch.counters.items():
            yield "HINCRBY", f"minimart:counters:{batch.partition}", name, number

    def _states(self, states: Mapping[tuple[str, Key], bytes], now_ms: int) -> Iterator[Command]:
        stamp = feast_redis.timestamp(now_ms)
        touched: dict[str, list[str]] = {}
        for (view, key), packed in states.items():
            yield ("HSET", self._keys[view](key), self._field(view), feast_redis.value(packed),
                   feast_redis.time_field(view), stamp)
            if self._plan.view(view).entity == SNAPSHOT_ENTITY:
                touched.setdefault(view, []).append("\x1f".join(key))
        for view, members in touched.items():
            for start in range(0, len(members), MEMBERS_AT_ONCE):  # Lua passes on no more than some thousand at once
                some = members[start:start + MEMBERS_AT_ONCE]
                yield "ZADD", touched_key(view), *(part for member in some for part in (now_ms, member))
        if states:
            yield "HSET", WRITTEN, *(part for view in dict.fromkeys(v for v, _ in states) for part in (view, now_ms))

    def _translated(self) -> _Translated:
        return _Translated(self._url)


def _counted(commands: Iterable[Command]) -> Iterator[Any]:
    """The parts of commands, each after their number."""
    for command in commands:
        yield len(command)
        yield from command


class _Translated:
    """Context in which Redis' errors become Unavailable."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (redis.RedisError, OSError)):
            raise Unavailable(f"the online store at {without_password(self._url)} did not answer: {error!r}") from None
