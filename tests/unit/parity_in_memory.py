"""The parity proof without processes: the stream worker's own shards over a drawn stream, a store that can be made to
fail, and the same brute force and comparison as the real run."""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from adapters.feature_state import Batch, Progress
from adapters.kafka import Record, partition_of
from feature_repo import events, tiles
from feature_repo.plan import FeaturePlan
from pipelines.parity import generate
from pipelines.parity.brute_force import BruteForce
from pipelines.parity.compare import Asked, Comparison
from pipelines.parity.explain import explain
from pipelines.parity.readings import as_rows
from pipelines.parity.sample import choose_keys, choose_times
from services.stream_features.shard import Engine, Shard

PARTITIONS = 2
PER_TURN = 40
NOW = 1_790_000_000_000
StateKey = tuple[str, tuple[str, ...]]
Log = dict[tuple[str, int], list[Record]]


class Crash(Exception):
    """The worker ends here, as by kill -9."""


class Store(Protocol):
    """The part of `adapters.feature_state.FeatureState` that a worker's turn needs."""

    def claim(self, partition: int) -> str: ...
    def load(self, partition: int) -> Progress | None: ...
    def states(self, wanted: Iterable[StateKey]) -> list[bytes | None]: ...
    def commit(self, batches: list[Batch], now_ms: int) -> None: ...
    def counters(self, partitions: int) -> dict[str, int]: ...


@dataclass
class MemoryStore:
    """Commits at once or not at all, as Redis does; `crashes`: on which commits the worker dies before it."""

    crashes: frozenset[int] = frozenset()
    commits: int = 0
    held: dict[StateKey, bytes] = field(default_factory=dict)
    progress: dict[int, Progress] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)

    def claim(self, partition: int) -> str:
        return "token"

    def load(self, partition: int) -> Progress | None:
        return copy.deepcopy(self.progress.get(partition))

    def states(self, wanted: Iterable[StateKey]) -> list[bytes | None]:
        return [self.held.get(key) for key in wanted]

    def commit(self, batches: list[Batch], now_ms: int) -> None:
        self.commits += 1
        if self.commits in self.crashes:
            raise Crash
        for batch in batches:
            self.put(batch.states)
            self.advance(batch)

    def put(self, states: dict[StateKey, bytes]) -> None:
        self.held |= states

    def advance(self, batch: Batch) -> None:
        """Offsets, sightings and counters."""
        mine = self.progress.setdefault(batch.partition, Progress())
        mine.offsets, mine.sources = dict(batch.offsets), dict(batch.sources)
        for (topic, hour), hashes in batch.sighted.items():
            seen = mine.seen.setdefault(topic, {})
            seen.update({identity: max(hour, seen.get(identity, 0)) for identity in hashes})
        self.counted.update(batch.counters)

    def counters(self, partitions: int) -> dict[str, int]:
        return dict(self.counted)


def drawn(plan: FeaturePlan, n: int = 2_500, seed: int = 3) -> generate.Stream:
    """A hard stream that ends at NOW."""
    return generate.draw(generate.Recipe(n, seed, NOW, plan.topics, generate.SHORT))


def logs(stream: generate.Stream) -> Log:
    """The stream as it would lie in Kafka."""
    found: Log = defaultdict(list)
    for topic, key, payload, arrival in zip(*stream[:4], strict=True):
        place = topic, partition_of(key, PARTITIONS)
        found[place].append(Record(*place, len(found[place]), arrival, key, payload))
    return found


def count(plan: FeaturePlan, log: Log, store: Store) -> None:
    """Let one worker count everything, started again from the store after each Crash."""
    rekeyed: Log = defaultdict(list)
    while True:
        try:
            _session(Engine(plan, PARTITIONS), log, rekeyed, store)
        except Crash:
            continue
        return


def _session(engine: Engine, log: Log, rekeyed: Log, store: Store) -> None:
    tokens = {p: store.claim(p) for p in range(PARTITIONS)}
    shards = {p: Shard(engine, p, tokens[p], store.load(p) or Progress()) for p in tokens}
    topics = (*engine.plan.topics, events.REKEYED)
    while True:
        turned = False
        for (p, shard), topic in ((one, topic) for one in shards.items() for topic in topics):
            records = (rekeyed if topic == events.REKEYED else log).get((topic, p), [])
            records = records[shard.next_offset(topic):][:PER_TURN]
            if not records:
                continue
            turned = True
            shard.read(topic, records)
            missing = shard.missing()
            batch = shard.apply(list(zip(missing, store.states(missing), strict=True)))
            for target, message in shard.travelling:
                mine = rekeyed[events.REKEYED, target]
                mine.append(Record(events.REKEYED, target, len(mine), records[-1].timestamp_ms, "", message))
            store.commit([batch], NOW)
            shard.committed()
        if not turned:
            return


@dataclass
class Verdict:
    """What the proof says."""

    comparison: Comparison
    explained: list[list[str]]
    outcomes: list[str]

    @property
    def text(self) -> str:
        return "\n".join(line for lines in self.explained for line in lines)


def judge(plan: FeaturePlan, stream: generate.Stream, log: Log, store: Store, *, keys: int = 8) -> Verdict:
    """Compare what the store holds with brute force at several times, and the outcomes of all records."""
    declared = json.loads(plan.dump())
    sample = choose_keys(declared, stream, keys, 1)
    brute = BruteForce(declared, sample)
    for (topic, partition), records in log.items():
        brute.read(topic, partition, [(r.offset, r.timestamp_ms, r.value or b"") for r in records])
    first = max(stream.arrivals)
    comparison = Comparison(brute)
    for view, chosen in sample.items():
        packed = store.states([(view, key) for key in chosen])
        for at in choose_times(first, first + 33 * generate.DAY, 9, np.random.default_rng(2)):
            rows = as_rows(tiles.columns(plan.view(view), packed, at), len(chosen))
            for _ in comparison.compare([Asked(view, key, at) for key in chosen], {"stream": rows}):
                pass
    counted = store.counters(PARTITIONS)
    wrong = [f"{topic}:{outcome}: {counted.get(f'{topic}:{outcome}', 0)}, not {n}"
             for (topic, outcome), n in sorted(brute.outcomes.items()) if counted.get(f"{topic}:{outcome}", 0) != n]
    return Verdict(comparison, [explain(brute, one) for one in comparison.mismatches], wrong)


def load_plan() -> FeaturePlan:
    return FeaturePlan.load(Path(__file__).parents[1] / "plan.json")


def functions_wrong(verdict: Verdict) -> set[Any]:
    """The functions of which a value was wrong."""
    return {function for (_, function, _), tally in verdict.comparison.tallies.items() if sum(tally.wrong.values())}
