"""Whether every record that was sent is accounted for.

Sent = in Kafka = counted + dead-lettered (poison, too late, clock ahead) + duplicate; every refused record has its dead
letter; the lake holds every record that is an event, once.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from adapters import event_lake
from adapters.kafka import DeadLetter, read_topic
from feature_repo import events
from pipelines.parity.generate import Stream
from pipelines.parity.servers import Servers

OUTCOMES: Final = ("counted", "duplicate", "too_late", "clock_ahead", "poison")
REASON: Final = {"poison": "not_an_event", "too_late": "too_late", "clock_ahead": "clock_ahead"}


@dataclass
class Account:
    """One topic. `wrong` says in words what does not add up."""

    topic: str
    sent: int = 0
    kafka: int = 0
    truth: dict[str, int] = field(default_factory=dict)  # outcome -> records, by brute force
    engine: dict[str, int] | None = None  # the same as the engine counted it
    dead: dict[str, int] | None = None  # outcome -> dead letters, each place once
    lake: int = 0
    wrong: list[str] = field(default_factory=list)


def accounts(servers: Servers, stream: Stream, kafka: Mapping[str, tuple[int, int]],
             truth: Mapping[tuple[str, str], int], engine: Mapping[str, int] | None) -> list[Account]:
    """`kafka`: topic -> (records, checksum of their payloads) as read back. Raises Unavailable."""
    sent = {topic: checksum(p for t, p in zip(stream.topics, stream.payloads, strict=True) if t == topic)
            for topic in servers.plan.topics}
    found = []
    for topic in servers.plan.topics:
        mine = {outcome: truth.get((topic, outcome), 0) for outcome in OUTCOMES}
        one = Account(topic, sent[topic][0], kafka[topic][0], mine)
        if sent[topic] != kafka[topic]:
            one.wrong.append(f"{sent[topic][0]} records were sent, Kafka holds {kafka[topic][0]}, or not the same ones")
        if sum(mine.values()) != kafka[topic][0]:
            one.wrong.append(f"brute force accounts for {sum(mine.values())} of {kafka[topic][0]} records")
        if engine is not None:
            one.engine = {outcome: engine.get(f"{topic}:{outcome}", 0) for outcome in OUTCOMES}
            one.wrong += [f"{outcome}: the engine says {one.engine[outcome]}, brute force {mine[outcome]}"
                          for outcome in OUTCOMES if one.engine[outcome] != mine[outcome]]
            _dead(servers, one)
        _lake(servers, one)
        found.append(one)
    return found


def checksum(payloads: Iterable[bytes]) -> tuple[int, int]:
    """(how many, a sum that does not depend on their order)."""
    count = total = 0
    for payload in payloads:
        count, total = count + 1, total + zlib.crc32(payload)
    return count, total


def _dead(servers: Servers, account: Account) -> None:
    places: dict[str, set[tuple[int, int]]] = {outcome: set() for outcome in REASON}
    for record in read_topic(servers.bootstrap, events.dlq(account.topic), timeout_s=60):
        letter = msgspec.json.decode(record.value or b"{}", type=DeadLetter)
        code = letter.reason.partition(":")[0]
        for outcome, reason in REASON.items():
            if code == reason:
                places[outcome].add((letter.partition, letter.offset))
    account.dead = {outcome: len(found) for outcome, found in places.items()}
    account.wrong += [f"{outcome}: {account.dead[outcome]} dead letters for {account.truth[outcome]} records"
                      for outcome in REASON if account.dead[outcome] != account.truth[outcome]]


def _lake(servers: Servers, account: Account) -> None:
    table = event_lake.scan(servers.lake, account.topic, ["_partition", "_offset"])
    rows = Counter(zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True))
    account.lake = len(rows)
    if twice := sum(n > 1 for n in rows.values()):
        account.wrong.append(f"{twice} rows of the lake are there twice")
    if len(rows) + account.truth["poison"] != account.kafka:
        account.wrong.append(f"the lake holds {len(rows)} of {account.kafka - account.truth['poison']} events")
