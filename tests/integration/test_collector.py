"""The collector on a real Kafka: events lie under their keys, the catalogue follows the topic, an outage is spooled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from adapters import kafka as kafka_adapter
from adapters.catalogue import Catalogue
from feature_repo import events
from pipelines.publish_catalogue import publish
from pipelines.seed_history import seed
from pipelines.stack import kafka_broker
from pipelines.stack.launch import free_ports, running
from services.collector.main import build
from settings import Settings

CLICK = {"type": "product_clicked", "user_id": "u-collector", "item_id": "i00001"}


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def settings(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("collector")
    made = Settings(home=home, kafka_bootstrap=kafka, sim_shoppers=60, sim_items=120, sim_days=7, _env_file=None)  # type: ignore[call-arg]
    seed(made)
    assert publish(made) > 90
    return made


@pytest.fixture(scope="module")
def http(settings: Settings) -> Iterator[TestClient]:
    with TestClient(build(settings)) as client:
        wait_for(lambda: client.get("/readyz").json().get("notes") == {})
        yield client


def records(settings: Settings, topic: str, key: str) -> list[kafka_adapter.Record]:
    return [r for r in kafka_adapter.read_topic(settings.kafka, topic) if r.key == key]


def test_an_event_lies_where_the_answer_says(http: TestClient, settings: Settings) -> None:
    said = http.post("/v1/events?ack=true", json=CLICK).json()
    assert said["accepted"] == 1
    place = said["positions"][0]
    found = [r for r in records(settings, "shop.clicks", "u-collector") if r.offset == place["offset"]]
    assert found[0].partition == place["partition"] == kafka_adapter.partition_of("u-collector", 4)
    event = events.decode("shop.clicks", found[0].value or b"")
    assert isinstance(event, events.ProductClicked)
    assert event.category


def test_an_unknown_item_is_quarantined(http: TestClient, settings: Settings) -> None:
    answer = http.post("/v1/events?ack=true", json=[{**CLICK, "item_id": "never-listed"}, CLICK])
    assert answer.json()["refused"][0]["reason"].startswith("unknown_item: never-listed")
    assert records(settings, "shop.clicks.dlq", "u-collector")


def test_a_new_item_is_known_at_once_and_everywhere(http: TestClient, settings: Settings) -> None:
    other = Catalogue(settings)
    other.start()
    now = int(time.time() * 1000)
    listed = {"type": "item_listed", "item_id": "brand-new", "title": "Brand New", "category": "Toys",
              "price_cents": 999, "seller_id": "seller-1", "listed_at": now}  # fmt: skip
    try:
        assert http.post("/v1/events", json=listed).status_code == 202
        assert http.post("/v1/events", json={**CLICK, "item_id": "brand-new"}).status_code == 202
        wait_for(lambda: other.get("brand-new") is not None)
        wait_for(lambda: other.caught_up)
    finally:
        other.close()


def test_publishing_the_catalogue_twice_changes_nothing(http: TestClient, settings: Settings) -> None:
    catalogue = Catalogue(settings)
    catalogue.start()
    try:
        wait_for(lambda: catalogue.caught_up)
        version = catalogue.version
        publish(settings)
        time.sleep(1.0)
        assert catalogue.version == version
    finally:
        catalogue.close()


def test_events_wait_in_the_spool_until_kafka_is_there(tmp_path: Path, settings: Settings) -> None:
    port, controller = free_ports(2)
    values = settings.model_dump() | {"kafka_bootstrap": f"127.0.0.1:{port}"}
    own = Settings(**values, _env_file=None)
    with TestClient(build(own)) as client:
        answer = client.post("/v1/events", json=CLICK)
        assert answer.status_code == 202, "the lake's catalogue is enough to take events in"
        ready = client.get("/readyz")
        assert ready.status_code == 200, "it can still do its work"
        assert "1 of 20000 events wait in memory" in ready.json()["notes"]["kafka"]
        assert "minimart_collector_spooled_events 1.0" in client.get("/metrics").text
        broker = kafka_broker.launch(tmp_path, host="127.0.0.1", port=port, controller_port=controller)
        up = partial(kafka_broker.ready, "127.0.0.1", port)
        with running(broker, log=tmp_path / "kafka.log", ready=up):
            kafka_adapter.ensure_topics(own.kafka, 4)
            wait_for(lambda: client.get("/readyz").json()["notes"] == {}, 30)
            assert len(records(own, "shop.clicks", "u-collector")) == 1
