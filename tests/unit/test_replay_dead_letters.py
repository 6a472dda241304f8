"""Replaying publishes what is a good event by now, and nothing on a dry run."""

from __future__ import annotations

import msgspec

from adapters.kafka import DeadLetter, MemoryPublisher, dead_letter
from feature_repo import events
from pipelines.replay_dead_letters import code, replay

CLICK = events.ProductClicked(event_id="e1", event_time=1_790_000_000_000, user_id="u1", item_id="i1", category="tea",
                              price_cents=5)


def letter(payload: bytes, reason: str) -> DeadLetter:
    topic, value = dead_letter("shop.clicks", payload, reason, source="test", time_ms=1, partition=2, offset=7)
    assert topic == "shop.clicks.dlq"
    return msgspec.json.decode(value, type=DeadLetter)


def test_good_payloads_are_published_under_their_own_key() -> None:
    publisher = MemoryPublisher()
    chosen = [letter(events.encode(CLICK), "unknown_item: i1"), letter(b"\xff", "not_an_event: x")]
    assert [code(x) for x in chosen] == ["unknown_item", "not_an_event"]
    assert replay(chosen, publisher, dry_run=False) == {"replayed": 1, "still_bad": 1}
    (record,) = publisher.of("shop.clicks")
    assert (record.key, record.value) == ("u1", events.encode(CLICK))


def test_a_dry_run_publishes_nothing() -> None:
    publisher = MemoryPublisher()
    assert replay([letter(events.encode(CLICK), "too_late")], publisher, dry_run=True) == {"replayed": 1}
    assert publisher.records == []
