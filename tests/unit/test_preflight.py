"""What is wrong with the machine or the state is said in one clear line with the fix, before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from adapters.errors import Misconfigured
from pipelines.stack import preflight, volumes
from pipelines.stack.parts import BY_NAME
from settings import Settings


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.delenv("MINIMART_PORT_OFFSET", raising=False)
    return Settings(home=tmp_path)


def test_a_taken_port_is_named_with_its_holder_and_the_setting_that_moves_it(settings: Settings) -> None:
    with socket.create_server((settings.host, 0)) as taken:
        port = taken.getsockname()[1]
        moved = settings.model_copy(update={"recommender_port": port})
        with pytest.raises(Misconfigured) as error:
            preflight.check_ports([BY_NAME["recommender"]], moved)
    settings_that_move_it = ("MINIMART_RECOMMENDER_PORT", "MINIMART_PORT_OFFSET=1000")
    for part in (str(port), "recommender", f"pid {os.getpid()}", *settings_that_move_it):
        assert part in error.value.detail


def test_free_ports_pass(settings: Settings) -> None:
    with socket.create_server((settings.host, 0)) as probe:
        free = probe.getsockname()[1]
    preflight.check_ports([BY_NAME["shop"]], settings.model_copy(update={"shop_port": free}))


def test_an_empty_home_is_marked_and_accepted_again(tmp_path: Path) -> None:
    preflight.check_state(tmp_path / "home")
    preflight.check_state(tmp_path / "home")


def test_a_folder_with_a_seeded_lake_only_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    preflight.check_state(tmp_path)
    assert (tmp_path / "VERSION").exists()


@pytest.mark.parametrize("found", ["0", "2", None])
def test_state_of_another_version_is_refused_with_the_fix(tmp_path: Path, found: str | None) -> None:
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    if found:
        (tmp_path / "VERSION").write_text(f"{found}\n")
    with pytest.raises(Misconfigured, match=f"version {found or 'none'}.*make reset.*MINIMART_HOME"):
        preflight.check_state(tmp_path)


def test_a_full_disk_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"are needed.*MINIMART_HOME"):
        preflight.check_disk(tmp_path, 1e9)


def test_too_little_memory_is_refused_with_the_fix() -> None:
    preflight.check_memory(0.1)
    with pytest.raises(Misconfigured, match=r"too little memory.*MINIMART_MEMORY_NEEDED_GIB"):
        preflight.check_memory(1e6)


def test_the_composed_preflight_says_what_to_do(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "data", sim_shoppers=100)
    assert "100 shoppers" in volumes.check(settings)
    volumes.check(settings)
    for other, says in (
        ({"sim_shoppers": 200}, "shoppers: 100 there, 200 asked.*down -v"),
        ({"disk_needed_gib": 60_000.0}, "GiB are needed.*docker system prune"),
        ({"memory_needed_gib": 4000.0}, "too little memory.*Docker Desktop"),
    ):
        with pytest.raises(Misconfigured, match=says):
            volumes.check(settings.model_copy(update=other))
    (settings.home / "VERSION").write_text("0\n")
    with pytest.raises(Misconfigured, match=r"version 0, this platform reads version 1.*docker compose down -v"):
        volumes.check(settings)


def test_other_data_sets_the_home_aside_and_brings_it_back(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"home": tmp_path / "home"})
    other = settings.model_copy(update={"seed": settings.seed + 1})
    one, two = preflight.identity_of(settings), preflight.identity_of(other)
    preflight.check_state(settings.home)
    assert preflight.take_home(settings, one, running=False) is None
    assert preflight.take_home(settings, one, running=True) is None
    (settings.home / "mark").write_text("one")

    said = preflight.take_home(other, two, running=False)
    assert f"seed: {settings.seed} there, {settings.seed + 1} asked" in str(said)
    assert not (settings.home / "mark").exists()
    assert (settings.home / "VERSION").exists()

    assert "is back" in str(preflight.take_home(settings, one, running=False))
    assert (settings.home / "mark").read_text() == "one"
    assert len(list(preflight.aside_of(settings.home).iterdir())) == 1


def test_a_running_platform_is_not_moved_to_other_data(settings: Settings) -> None:
    preflight.take_home(settings, preflight.identity_of(settings), running=False)
    other = settings.model_copy(update={"seed": settings.seed + 1})
    with pytest.raises(Misconfigured, match=r"runs on other data .*seed.*make down"):
        preflight.take_home(settings, preflight.identity_of(other), running=True)


def test_another_port_offset_than_the_started_one_is_said(settings: Settings) -> None:
    preflight.check_ports_asked(settings)
    preflight.remember_ports(settings)
    preflight.check_ports_asked(settings)
    moved = settings.model_copy(update={"port_offset": 3000})
    with pytest.raises(Misconfigured, match="MINIMART_PORT_OFFSET=0, and now it is 3000"):
        preflight.check_ports_asked(moved)


def test_data_that_is_not_there_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is not a folder"):
        preflight.identity_of(settings.model_copy(update={"data": tmp_path / "nothing"}))
    with pytest.raises(Misconfigured, match="is not a file"):
        preflight.identity_of(settings.model_copy(update={"data": tmp_path, "mapping": tmp_path / "mapping.toml"}))
