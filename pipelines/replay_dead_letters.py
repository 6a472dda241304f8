"""Read dead letters, count them by reason, and publish again those that are good events by now.

    python -m pipelines.replay_dead_letters --topic shop.clicks --reason unknown_item --dry-run

A record that was dead-lettered twice (by two consumers, or again after a crash) is replayed once. Replaying is safe to
repeat: the event keeps its id, so whoever counted it before counts it as a duplicate. The late rule judges it by its
new arrival. A payload that is still no event of its topic stays where it is.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable

import msgspec

from adapters.kafka import DeadLetter, KafkaPublisher, Publisher, read_topic
from feature_repo import events
from settings import load_settings


def letters(bootstrap: str, topic: str) -> list[DeadLetter]:
    """The dead letters of a topic, each source record once, oldest first. Raises Unavailable."""
    found: dict[tuple[int, int] | int, DeadLetter] = {}
    for record in read_topic(bootstrap, events.dlq(topic)):
        letter = msgspec.json.decode(record.value or b"{}", type=DeadLetter)
        place = (letter.partition, letter.offset) if letter.offset >= 0 else hash(letter.payload_base64)
        found.setdefault(place, letter)
    return sorted(found.values(), key=lambda letter: letter.time_ms)


def code(letter: DeadLetter) -> str:
    """The reason without its detail."""
    return letter.reason.partition(":")[0]


def replay(chosen: Iterable[DeadLetter], publisher: Publisher, *, dry_run: bool) -> Counter[str]:
    """Publish every letter that is an event of its topic; returns how many were `replayed` and `still_bad`."""
    result: Counter[str] = Counter()
    for letter in chosen:
        try:
            event = events.decode(letter.topic, letter.payload())
        except events.EventRejected:
            result["still_bad"] += 1
            continue
        if not dry_run:
            publisher.publish(letter.topic, event.key(), letter.payload())
        result["replayed"] += 1
    return result


def main() -> None:
    known = [e.topic for e in events.EVENTS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--topic", choices=known, help="only this topic's dead letters (default: every topic's)")
    parser.add_argument("--reason", default="", help="only this reason, e.g. unknown_item, too_late, not_an_event")
    parser.add_argument("--dry-run", action="store_true", help="count and say what would be published, publish nothing")
    asked = parser.parse_args()
    settings = load_settings()
    publisher = KafkaPublisher(settings.kafka, client_id="replay", max_buffer=1_000_000)
    total: Counter[str] = Counter()
    for topic in [asked.topic] if asked.topic else known:
        found = letters(settings.kafka, topic)
        for reason, number in Counter(map(code, found)).most_common():
            print(f"{topic:20} {reason:24} {number:8}")
        total += replay([x for x in found if asked.reason in ("", code(x))], publisher, dry_run=asked.dry_run)
    publisher.flush(60)
    publisher.close()
    done = "would replay" if asked.dry_run else "replayed"
    print(f"{done} {total['replayed']}, still not an event {total['still_bad']}")


if __name__ == "__main__":
    main()
