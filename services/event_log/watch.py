"""Freshness and volume of every topic that the lake keeps, against its contract, as gauges: watched all the time.

Looks at the footers of the lake's files only. The rules of deploy/prometheus judge the gauges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from adapters.lake_watch import LakeWatch
from feature_repo import events
from feature_repo.contracts import watch
from feature_repo.contracts.contract import Contract
from feature_repo.contracts.files import contracts

NEWEST: Final = Gauge("minimart_topic_newest_timestamp_seconds", "Arrival of the newest record of a topic", ["topic"])
ALLOWED: Final = Gauge("minimart_topic_freshness_seconds", "How old the newest record may be, by contract", ["topic"])
RECORDS: Final = Gauge("minimart_topic_hour_records", "Records of the last whole hour", ["topic"])
EXPECTED: Final = Gauge("minimart_topic_hour_expected_records", "What the hours before it let expect", ["topic"])
VOLUME: Final = Gauge("minimart_topic_volume_level", "-1 too little data, 0 as expected, 1 off", ["topic"])


class ContractWatch:
    """Looks at one lake. A topic that never came live has no gauges, so nothing waits for it."""

    def __init__(self, lake: Path) -> None:
        self._lake = LakeWatch(lake)
        self._contracts = [c for name, c in contracts().items() if name in events.LAKE_TOPICS]

    def look(self, now_ms: int) -> None:
        for contract in self._contracts:
            live = self._lake.look(contract.name)
            if live.newest_ms is not None:
                _show(contract, live, now_ms)


def _show(contract: Contract, live: watch.Live, now_ms: int) -> None:
    assert live.newest_ms is not None
    NEWEST.labels(contract.name).set(live.newest_ms / 1000)
    if contract.freshness is not None:
        ALLOWED.labels(contract.name).set(contract.freshness.most_s)
    found = watch.volume(contract, live, now_ms)
    if found is not None:
        seen = watch.volume_of(contract, live, now_ms)
        RECORDS.labels(contract.name).set(seen.records)
        VOLUME.labels(contract.name).set(found.level)
        if seen.expected is not None:
            EXPECTED.labels(contract.name).set(seen.expected)
