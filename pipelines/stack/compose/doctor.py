"""Whether this machine can run the composed platform: engine, plugin, memory, disk, ports. Changes nothing."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from adapters.errors import MinimartError, Misconfigured
from pipelines.stack.compose import advice, engine
from pipelines.stack.compose.engine import ask, compose

GIB: Final = 1 << 30
MEMORY_NEEDED: Final = 7 * GIB  # a machine sold as 8 GiB has a little less
DISK_NEEDED: Final = 10 * GIB


class Finding(NamedTuple):
    """`fix` is empty where all is well."""

    what: str
    found: str
    fix: str = ""


def doctor() -> int:
    """Print every finding; 1 if something that is needed is missing."""
    worst = 0
    for one in examine():
        print(f"{'no' if one.fix else 'ok':4}{one.what:10}{one.found}" + (f"\n    -> {one.fix}" if one.fix else ""))
        worst = max(worst, int(bool(one.fix)))
    return worst


def examine() -> Iterator[Finding]:
    """What the composed platform needs, in the order of need; ends early where the rest cannot be asked."""
    try:
        info = engine.check()
        version = ask(compose("version", "--short")).strip()
    except MinimartError as error:
        yield Finding("docker", "not usable", error.detail)
        return
    yield Finding("docker", f"engine {info.get('ServerVersion')}, compose {version}, {info.get('OperatingSystem')}")
    yield _memory(info)
    yield from _disk(info)
    try:
        yield from ports()
    except MinimartError as error:
        yield Finding("project", "docker-compose.yml cannot be read", error.detail)


def require() -> None:
    """Raise Misconfigured with every fix where something is missing."""
    if fixes := [one.fix for one in examine() if one.fix]:
        raise Misconfigured("\n".join(fixes))


def _memory(info: dict[str, Any]) -> Finding:
    total = int(info.get("MemTotal", 0))
    found = f"{total / GIB:.1f} GiB for containers"
    if total >= MEMORY_NEEDED:
        return Finding("memory", found)
    return Finding(
        "memory", found,
        f"too little memory: Docker has {total / GIB:.1f} GiB, the platform needs 8 GiB (Docker Desktop: Settings, "
        "Resources, Memory; else a larger machine, or make demo, which runs it natively in about 5 GiB)",
    )  # fmt: skip


def _disk(info: dict[str, Any]) -> Iterator[Finding]:
    folder = Path(str(info.get("DockerRootDir", "")))
    if not folder.is_dir():  # Docker Desktop, or an engine elsewhere: its disk cannot be seen from here
        return
    free = shutil.disk_usage(str(folder)).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    fix = f"the disk is nearly full: {found}, {DISK_NEEDED / GIB:.0f} GiB are needed for images and data: free some, "
    yield Finding("disk", found, "" if free >= DISK_NEEDED else fix + "e.g. with docker system prune")


def ports() -> Iterator[Finding]:
    """Every port that the platform publishes and somebody else has."""
    ours = {port for one in engine.containers() for _, port, _ in one.published}
    names = engine.settings_of_ports()
    taken = 0
    for service in engine.model().values():
        for port in service.get("ports") or () if not service.get("profiles") else ():
            number = int(str(port.get("published") or 0).partition("-")[0])
            if number and number not in ours and _listens(port.get("host_ip") or "127.0.0.1", number):
                taken += 1
                yield Finding("port", str(number), advice.port_taken(number, names))
    if not taken:
        yield Finding("ports", "free, or ours")


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1" if host == "0.0.0.0" else host, port)) == 0
