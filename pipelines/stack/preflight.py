"""What must hold before anything is started; each failure is one clear line with the fix, within seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from adapters.errors import Misconfigured
from pipelines.stack.launch import port_open
from pipelines.stack.parts import Part
from settings import Settings

STATE_VERSION = 1  # of what lies under home; raised when an older home cannot be read any more
STATE = ("kafka", "redis", "mlflow", "published")  # folders that only a platform writes
GIB = 1 << 30
NATIVE_FIX = "drop it with `make reset`, or set MINIMART_HOME to another folder"


def check_state(home: Path, fix: str = NATIVE_FIX) -> None:
    """Refuse a home that another version of the platform wrote; mark a new one as ours."""
    file = home / "VERSION"
    if not file.exists() and not any(any((home / folder).glob("*")) for folder in STATE):
        home.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{STATE_VERSION}\n")
        return
    found = file.read_text().strip() if file.exists() else "none"
    if found != str(STATE_VERSION):
        raise Misconfigured(
            f"the state in {home} is of version {found}, this platform reads version {STATE_VERSION}: {fix}"
        )


def check_disk(home: Path, needed_gib: float, fix: str = "or set MINIMART_HOME to a folder on a larger disk") -> None:
    """Refuse to start where the disk would fill up."""
    free = shutil.disk_usage(home if home.exists() else home.parent).free
    if free < needed_gib * GIB:
        raise Misconfigured(
            f"{free / GIB:.1f} GiB are free for {home}, {needed_gib:g} GiB are needed (MINIMART_DISK_NEEDED_GIB): free "
            f"some, {fix}"
        )


def check_memory(needed_gib: float, fix: str = "close something, or") -> None:
    """Refuse to start where the memory does not suffice."""
    total = psutil.virtual_memory().total
    if total < needed_gib * GIB:
        raise Misconfigured(
            f"too little memory: this machine has {total / GIB:.1f} GiB, {needed_gib:g} GiB are needed: {fix} set "
            "MINIMART_MEMORY_NEEDED_GIB lower to try all the same"
        )


def check_ports(parts: Iterable[Part], settings: Settings) -> None:
    """Refuse when a port of a part that is to be started is taken, naming who has it and the settings that move it."""
    taken = [
        f"port {number} ({part.name}, MINIMART_{port.upper()}_PORT) is taken by {holder(number)}"
        for part in parts
        for port in part.ports
        if port_open(settings.host, number := settings.port(port))
    ]
    if taken:
        raise Misconfigured(
            "\n".join(taken) + "\nstop what has it, set another number, or move every port at once: "
            f"MINIMART_PORT_OFFSET={settings.port_offset + 1000} make demo"
        )


def take_home(settings: Settings, identity: dict[str, Any], *, running: bool) -> str | None:
    """Make home the one of this data: remembered in an empty one; one with other data is set aside, never overwritten,
    and comes back when its data is asked for again. Gives what was done, if anything.

    Raises Misconfigured while a platform runs on other data, or where home cannot be moved.
    """
    home, file = settings.home, settings.home / "identity.json"
    if not file.exists():
        file.write_text(json.dumps(identity, indent=1))
        return None
    held = json.loads(file.read_text())
    if held == identity:
        return None
    changes = _changes(held, identity)
    if running:
        raise Misconfigured(f"the platform runs on other data ({changes}): `make down` first, then ask again")
    aside, back = _aside(home, held), _aside(home, identity)
    try:
        aside.parent.mkdir(exist_ok=True)
        home.rename(aside)
        if back.exists():
            back.rename(home)
            return f"other data was asked for ({changes}): {aside} keeps what was here, and its earlier state is back"
        check_state(home)
    except OSError as error:
        raise Misconfigured(
            f"{home} holds other data ({changes}) and cannot be set aside ({error}): drop it with `make reset`, or "
            "keep both with MINIMART_HOME=another-folder"
        ) from None
    file.write_text(json.dumps(identity, indent=1))
    return f"other data was asked for ({changes}): {aside} keeps what was here"


def check_identity(settings: Settings, identity: dict[str, Any], fix: str) -> None:
    """Refuse data that came from elsewhere than what is asked for; remember what is asked for where there is none."""
    file = settings.home / "identity.json"
    if not file.exists():
        file.write_text(json.dumps(identity, indent=1))
    elif (held := json.loads(file.read_text())) != identity:
        changes = _changes(held, identity)
        raise Misconfigured(f"the data in {settings.home} is of another marketplace ({changes}): {fix}")


def aside_of(home: Path) -> Path:
    """The folder beside home that keeps what was set aside."""
    return home.with_name(f"{home.name}.aside")


def _aside(home: Path, identity: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return aside_of(home) / f"{identity['source']}-{digest[:8]}"


def _changes(held: dict[str, Any], asked: dict[str, Any]) -> str:
    if held["source"] != asked["source"]:
        names = [str(one.get("folder", "the simulator")) for one in (held, asked)]
        return f"{names[0]} there, {names[1]} asked"
    names = sorted(key for key in held.keys() | asked.keys() if held.get(key) != asked.get(key))
    return ", ".join(f"{name}: {held.get(name)!r} there, {asked.get(name)!r} asked" for name in names)


def remember_ports(settings: Settings) -> None:
    """Note at which ports the platform of this home was started."""
    (settings.home / "port_offset").write_text(f"{settings.port_offset}\n")


def check_ports_asked(settings: Settings) -> None:
    """Refuse to judge a platform that was started with another port offset than the one that is asked for."""
    file = settings.home / "port_offset"
    started = file.read_text().strip() if file.exists() else str(settings.port_offset)
    if started != str(settings.port_offset):
        raise Misconfigured(
            f"the platform in {settings.home} was started with MINIMART_PORT_OFFSET={started}, and now it is "
            f"{settings.port_offset}: set it to {started} in the environment or in .env"
        )


def identity_of(settings: Settings) -> dict[str, Any]:
    """What the data under home came from. Raises Misconfigured when the folder given does not exist."""
    if settings.data is None:
        return {
            "source": "simulator", "seed": settings.seed, "shoppers": settings.sim_shoppers,
            "items": settings.sim_items, "days": settings.sim_days,
        }  # fmt: skip
    folder = settings.data.resolve()
    if not folder.is_dir():
        raise Misconfigured(f"DATA={settings.data} is not a folder: give one with items and events (see docs/data.md)")
    if settings.mapping and not settings.mapping.is_file():
        raise Misconfigured(f"MAPPING={settings.mapping} is not a file: give a mapping.toml (see docs/data.md)")
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    mapping = settings.mapping.read_text() if settings.mapping else ""
    return {"source": "import", "folder": str(folder), "mapping": mapping, "bytes": files}


def holder(port: int) -> str:
    """Who listens on `port`, as far as this user may see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
                return _describe(connection.pid)
    return "a process of another user"


def _describe(pid: int) -> str:
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        command = "?"
    return f"pid {pid} ({command[:80]})"
