"""Docker's engine and compose as this project uses them: ask, run, and raise what goes wrong as one clear line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import Misconfigured, Unavailable
from pipelines.stack.compose import advice

ROOT = Path(__file__).resolve().parents[3]
NOT_UP = "the composed platform does not run: start it with docker compose up -d --wait, or make demo STACK=compose"


@dataclass(frozen=True)
class Container:
    """One container. `state` is Docker's word (running, exited, restarting ...), `health` healthy, unhealthy, starting
    or empty where there is no check; `published` (host address, host port, port inside)."""

    id: str
    name: str
    service: str
    state: str
    health: str
    exit_code: int
    published: tuple[tuple[str, int, int], ...]

    @property
    def number(self) -> str:
        """Its place among the replicas: `2` of minimart-recommender-2."""
        return self.name.rpartition("-")[2]


def compose(*arguments: str) -> list[str]:
    return ["docker", "compose", *arguments]


def ask(command: list[str], timeout_s: float = 60) -> str:
    """What a command prints. Raises Misconfigured or Unavailable with the fix."""
    if shutil.which(command[0]) is None:
        raise Misconfigured(advice.NOT_INSTALLED)
    try:
        done = subprocess.run(command, cwd=str(ROOT), capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Docker did not answer {' '.join(command[:3])} within {timeout_s:.0f} s") from None
    if done.returncode:
        raise Unavailable(advice.explain(done.stderr or done.stdout))
    return done.stdout


def check() -> dict[str, Any]:
    """The engine's own account (`docker info`). Raises when Docker or its compose plugin is missing or does not run."""
    ask(compose("version"))
    info: dict[str, Any] = json.loads(ask(["docker", "info", "--format", "{{json .}}"]))
    if errors := info.get("ServerErrors"):
        raise Unavailable(advice.explain("\n".join(errors)))
    return info


def model() -> dict[str, dict[str, Any]]:
    """The services of the compose file as compose understands it, by name, those of profiles that are off too."""
    found: dict[str, Any] = json.loads(ask(compose("--profile", "*", "config", "--format", "json")))
    return dict(found["services"])


def one_shot(service: Mapping[str, Any]) -> bool:
    """Whether a service is a job that ends."""
    return str(service.get("restart", "no")) == "no"


def containers() -> list[Container]:
    """Every container of the project, the ended ones too."""
    said = ask(compose("ps", "--all", "--format", "json")).strip()
    if not said:
        return []
    rows = json.loads(said) if said.startswith("[") else [json.loads(line) for line in said.splitlines()]
    return sorted((_container(row) for row in rows), key=lambda one: one.name)


def _container(row: dict[str, Any]) -> Container:
    ports = {
        (p.get("URL") or "", int(p["PublishedPort"]), int(p["TargetPort"]))
        for p in row.get("Publishers") or () if p.get("PublishedPort")
    }  # fmt: skip
    return Container(
        row["ID"], row["Name"], row["Service"], row["State"], row.get("Health") or "", int(row.get("ExitCode") or 0),
        tuple(sorted(ports, key=lambda port: port[2])),
    )  # fmt: skip


def memory_mib(ids: list[str]) -> dict[str, int]:
    """Memory of running containers, by the id they were asked with."""
    if not ids:
        return {}
    lines = ask(["docker", "stats", "--no-stream", "--format", "{{.ID}} {{.MemUsage}}", *ids]).splitlines()
    found = {line.split()[0]: _mib(line.split()[1]) for line in lines if len(line.split()) > 1}
    return {one: next((mib for short, mib in found.items() if one.startswith(short[:12])), 0) for one in ids}


def _mib(text: str) -> int:
    """`1.5GiB` or `823.4MiB` in MiB."""
    units = {"GiB": 1024.0, "MiB": 1.0, "KiB": 1 / 1024, "kB": 1 / 1049, "B": 1 / (1 << 20)}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return round(float(text[: -len(unit)]) * units[unit]) if unit else 0


def last_check(container: Container) -> str:
    """What its health check, or its end, said last; empty when nothing."""
    state = json.loads(ask(["docker", "inspect", "--format", "{{json .State}}", container.id]))
    if state.get("OOMKilled"):
        return "killed for memory: raise its limit, or give Docker more"
    log = (state.get("Health") or {}).get("Log") or []
    said = " ".join(str(log[-1].get("Output", "")).split())[-200:] if log else ""
    return said if container.health != "healthy" else ""


def settings_of_ports() -> dict[int, str]:
    """Which variable of the compose file sets which published port, as things are set now."""
    path = ROOT / "docker-compose.yml"
    if not path.is_file():
        return {}
    own = dict(re.findall(r"^(\w+_PORT)=(\d+)$", _text(ROOT / ".env"), re.MULTILINE))
    defaults = advice.settings_of_ports(path.read_text(encoding="utf-8"))
    return {int(os.environ.get(name) or own.get(name) or port): name for port, name in defaults.items()}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
