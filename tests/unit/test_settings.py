"""Addresses and credentials of neighbours: what is composed, what is refused, what is never printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings import Settings, load_settings, with_credentials, without_password

PRODUCTION = {
    "ENVIRONMENT": "production",
    "REDIS_PASSWORD": "r-4",
    "MLFLOW_PASSWORD": "m-4",
    "CLICKHOUSE_PASSWORD": "c-4",
}


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, DATA="", SEED="")
    assert load_settings().data is None
    assert load_settings().seed == 7


def test_lines_of_others_in_the_env_file_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("COMPOSE_PROJECT_NAME=other\nTORCH_INDEX=somewhere\nMINIMART_SEED=11\n")
    monkeypatch.setitem(Settings.model_config, "env_file", file)
    assert load_settings().seed == 11
    file.write_text("MINIMART_SEAD=11\n")
    with pytest.raises(SystemExit, match="MINIMART_SEAD"):
        load_settings()


def given(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    for name, value in values.items():
        monkeypatch.setenv(f"MINIMART_{name}", value)


def test_a_part_is_on_this_machine_until_a_setting_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, PORT_OFFSET="100", RECOMMENDER_URL="http://balancer:8082/")
    settings = load_settings()
    assert settings.url("recommender") == "http://balancer:8082"
    assert settings.url("shop") == "http://127.0.0.1:8180"


def test_passwords_are_put_into_the_addresses_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, REDIS_URL="redis://redis:6379/0", REDIS_PASSWORD="a/b@c", MLFLOW_URI="http://mlflow:8086",
          MLFLOW_USER="me", MLFLOW_PASSWORD="p")  # fmt: skip
    settings = load_settings()
    assert settings.redis == "redis://:a%2Fb%40c@redis:6379/0"
    assert settings.mlflow == "http://me:p@mlflow:8086"
    assert "a/b@c" not in repr(settings)


def test_an_address_with_credentials_of_its_own_keeps_them() -> None:
    assert with_credentials("redis://:mine@redis:6379/0", "", "other") == "redis://:mine@redis:6379/0"
    assert without_password("redis://:mine@redis:6379/0") == "redis://redis:6379/0"


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "MLFLOW_PASSWORD", "CLICKHOUSE_PASSWORD"])
@pytest.mark.parametrize("weak", ["", "password1234"])
def test_production_refuses_missing_and_default_passwords(
    monkeypatch: pytest.MonkeyPatch, name: str, weak: str
) -> None:
    given(monkeypatch, **{**PRODUCTION, name: weak})
    with pytest.raises(SystemExit, match=f"MINIMART_{name}") as refused:
        load_settings()
    assert "-4" not in str(refused.value)


def test_production_takes_passwords_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, **PRODUCTION)
    assert load_settings().environment == "production"


def test_a_child_is_given_the_same_settings_but_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINIMART_SIM_ITEMS", "700")
    monkeypatch.setenv("MINIMART_REDIS_PASSWORD", "s3cret")
    settings = Settings(home=tmp_path, port_offset=1000, rollout_gate_bypass=True, output=None)
    assert settings.given() == {"MINIMART_HOME": str(tmp_path), "MINIMART_PORT_OFFSET": "1000",
                                "MINIMART_ROLLOUT_GATE_BYPASS": "True", "MINIMART_SIM_ITEMS": "700"}
    monkeypatch.setenv("MINIMART_SIM_ITEMS", "1000")
    for name, value in settings.given().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings.model_copy(update={"output": None})
