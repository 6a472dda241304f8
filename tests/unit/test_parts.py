"""The one list of parts agrees with the settings, with the folders of services/ and with itself."""

from __future__ import annotations

import itertools

import pytest

from pipelines.stack.parts import BY_NAME, PARTS, mermaid, native, targets
from settings import ROOT, Settings


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.delenv("MINIMART_PORT_OFFSET", raising=False)
    return Settings(home=tmp_path)


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(PARTS)


def test_every_port_setting_belongs_to_exactly_one_part() -> None:
    listed = list(itertools.chain.from_iterable(part.ports for part in PARTS))
    known = {name.removesuffix("_port") for name in Settings.model_fields if name.endswith("_port")}
    known -= {"grafana"}  # runs in the composed platform alone
    assert sorted(listed) == sorted(known)


def test_no_two_ports_have_the_same_number(settings: Settings) -> None:
    numbers = [settings.port(port) for part in PARTS for port in part.ports]
    assert len(set(numbers)) == len(numbers)


def test_a_service_is_a_folder_of_services_and_the_other_way_round() -> None:
    folders = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
    assert {part.name for part in PARTS if part.kind == "service"} == folders


def test_arrows_lead_to_parts() -> None:
    assert {other for part in PARTS for other in part.talks_to} <= BY_NAME.keys() | {"lake"}


def test_a_neighbour_that_runs_elsewhere_is_not_started_here(settings: Settings) -> None:
    away = settings.model_copy(update={"kafka_bootstrap": "broker:9092", "redis_url": "redis://cache:6379/0"})
    assert {part.name for part in native(settings)} - {part.name for part in native(away)} == {"kafka", "redis"}


def test_the_offset_moves_every_address(settings: Settings) -> None:
    moved = settings.model_copy(update={"port_offset": 1000})
    for part in PARTS:
        assert part.port(moved) == part.port(settings) + 1000
        assert str(part.port(moved)) in part.address(moved)


def test_every_service_is_watched(settings: Settings) -> None:
    watched = {part.name for part, _ in targets(settings)}
    assert {part.name for part in PARTS if part.kind == "service"} <= watched
    assert {part.name: target for part, target in targets(settings)}["triton"].endswith(":8089")


def test_the_picture_shows_every_part() -> None:
    text = mermaid()
    assert text.startswith("flowchart LR\n")
    for part in PARTS:
        assert f"    {part.name}" in text
