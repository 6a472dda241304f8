"""The files that the stack writes for others: process manager, Kafka, Prometheus, alert rules."""

from __future__ import annotations

import configparser
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import Corrupt
from pipelines.stack import jars, kafka_broker, prometheus_server, redis_server, triton_server
from pipelines.stack.launch import CannotRun, Launch
from pipelines.stack.supervisor import Supervisor
from settings import ROOT

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus")


def parsed(text: str) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser(inline_comment_prefixes=(" ;", "\t;"))
    config.read_string(text)
    return config


@given(words=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1), min_size=1, max_size=4))
def test_a_command_survives_the_process_managers_quoting(words: list[str]) -> None:
    quoted = Supervisor(Path("/nowhere")).render({"x": Launch(("/bin/echo", *words))})
    line = next(line for line in quoted.splitlines() if line.startswith("command = "))
    assert shlex.split(line.removeprefix("command = ").replace("%%", "%")) == ["/bin/echo", *words]


def test_every_program_is_restarted_rotates_its_log_and_ends_as_a_group(tmp_path: Path) -> None:
    programs = {"a": Launch(("/bin/true",), {"KEY": "a,b"}), "b": Launch(("/bin/true",))}
    config = parsed(Supervisor(tmp_path).render(programs))
    for name in ("program:a", "program:b"):
        program = config[name]
        assert program["autorestart"] == program["stopasgroup"] == program["killasgroup"] == "true"
        assert program["stdout_logfile_maxbytes"] == "10MB"
    assert 'KEY="a,b"' in config["program:a"]["environment"]


def test_the_managers_socket_is_private_and_fits_into_an_address(tmp_path: Path) -> None:
    deep = Supervisor(tmp_path / ("x" * 120))
    assert len(str(deep.socket)) <= 104
    assert deep.socket != Supervisor(tmp_path / ("y" * 120)).socket
    assert parsed(deep.render({}))["unix_http_server"]["chmod"] == "0700"


def test_kafka_makes_no_topics_by_itself_and_listens_where_it_was_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kafka_broker, "install", lambda: [Path("a.jar"), Path("b.jar")])
    monkeypatch.setattr(kafka_broker, "_format", lambda *_: None)
    launch = kafka_broker.launch(tmp_path, host="127.0.0.1", port=1234, controller_port=1235)
    properties = dict(line.split("=", 1) for line in (tmp_path / "server.properties").read_text().splitlines())
    assert properties["auto.create.topics.enable"] == "false"
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:1234,CONTROLLER://127.0.0.1:1235"
    assert launch.command[-2:] == ("kafka.Kafka", str(tmp_path / "server.properties"))
    assert "-Xmx512m" in launch.command


def test_a_swapped_jar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kafka_2.13-4.1.0.jar").write_bytes(b"not Kafka")
    with pytest.raises(Corrupt, match=r"kafka_2\.13-4\.1\.0\.jar"):
        jars.check(list(tmp_path.glob("*.jar")), kafka_broker.DIGESTS, tmp_path)


def test_redis_never_evicts_a_feature(tmp_path: Path) -> None:
    command = redis_server.launch(tmp_path, host="127.0.0.1", port=1).command
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_triton_says_why_it_cannot_run(monkeypatch) -> None:
    triton_server.wheel.cache_clear()
    monkeypatch.setattr(triton_server.sys, "platform", "darwin")
    with pytest.raises(CannotRun, match="for Linux"):
        triton_server.wheel()
    triton_server.wheel.cache_clear()


def test_a_missing_prometheus_comes_with_its_install_command(monkeypatch) -> None:
    monkeypatch.setattr(prometheus_server.shutil, "which", lambda _: None)
    with pytest.raises(CannotRun, match="apt install prometheus"):
        prometheus_server.binary("prometheus")


@promtool
def test_alert_rules_fire_and_stay_quiet_as_written_in_their_tests() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=ROOT / "deploy/prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    config = prometheus_server.scrape_config([("shop", "127.0.0.1:8080", "/metrics")], "127.0.0.1:8095")
    path = tmp_path / "prometheus.yml"
    path.write_text(json.dumps(config))
    done = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is missing: apt install prometheus-alertmanager")
def test_alertmanagers_configuration_is_valid() -> None:
    done = subprocess.run(
        ["amtool", "check-config", str(prometheus_server.ALERTMANAGER_CONFIG)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
