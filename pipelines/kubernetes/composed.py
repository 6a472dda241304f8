"""docker-compose.yml, read: one `Container` for each service, with its defaults filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from adapters.errors import Misconfigured
from pipelines.kubernetes.table import NOT_MOUNTED
from settings import ROOT

FILE: Final = ROOT / "docker-compose.yml"
VARIABLE: Final = re.compile(r"\$\{\w+(?::?([-+?])([^}]*))?\}")
UNITS: Final = {"m": "Mi", "g": "Gi"}


@dataclass(frozen=True)
class Mount:
    """A volume by its name, or a file of the project by its path below it, and where it is seen."""

    source: str
    target: str
    read_only: bool

    @property
    def is_file(self) -> bool:
        """Whether it is a file or folder of the project."""
        return self.source.startswith("./")


@dataclass(frozen=True)
class Container:
    """What compose says of one service."""

    name: str
    image: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]  # of ours: what differs from the shared settings
    mounts: tuple[Mount, ...]
    memory: str
    check: tuple[str, ...]
    waits_for: dict[str, str]  # name -> condition
    scratch: tuple[str, ...]  # folders in memory
    shared_memory: str
    grace_s: int


def read(path: Path = FILE) -> dict[str, Container]:
    """Every service of the file."""
    shared = shared_settings(path)
    return {name: _container(name, one, shared) for name, one in _document(path)["services"].items()}


def listing(source: str) -> dict[str, Path]:
    """The files below a mounted folder of the project, by their path there; tests of rules are left out."""
    folder = ROOT / source
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.stem.endswith("_test")]
    return {str(path.relative_to(folder)): path for path in files}


def shared_settings(path: Path = FILE) -> dict[str, str]:
    """The environment that every process of ours gets."""
    return _texts(_document(path)["x-settings"])


def _document(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def _container(name: str, one: dict[str, Any], shared: dict[str, str]) -> Container:
    environment = _texts(one.get("environment") or {})
    mounts = [_mount(name, text) for text in one.get("volumes", [])]
    return Container(
        name=name,
        image=_filled(one["image"]),
        entrypoint=_words(one.get("entrypoint")),
        command=_words(one.get("command")),
        environment={key: value for key, value in environment.items() if shared.get(key) != value},
        mounts=tuple(mount for mount in mounts if mount.target not in NOT_MOUNTED),
        memory=_memory(one["mem_limit"]),
        check=_check(one.get("healthcheck") or {}),
        waits_for={other: how["condition"] for other, how in (one.get("depends_on") or {}).items()},
        scratch=tuple(one.get("tmpfs", [])),
        shared_memory=_memory(one["shm_size"]) if "shm_size" in one else "",
        grace_s=int(str(one.get("stop_grace_period", "10s")).removesuffix("s")),
    )


def _check(check: dict[str, Any]) -> tuple[str, ...]:
    """The health check as a command line; empty where there is none."""
    if check.get("disable") or not check.get("test"):
        return ()
    kind, *words = check["test"]
    return ("/bin/sh", "-c", *words) if kind == "CMD-SHELL" else tuple(map(str, words))


def _mount(name: str, text: Any) -> Mount:
    if not isinstance(text, str):
        raise Misconfigured(f"docker-compose.yml: volumes of {name}: only the short form is understood, not {text}")
    source, target, *mode = _filled(text).split(":")
    return Mount(source, target, mode == ["ro"])


def _words(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(_filled(str(word)) for word in (value if isinstance(value, list) else value.split()))


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {key: _filled(str(value)) for key, value in values.items()}


def _filled(text: str) -> str:
    """`${NAME:-default}` becomes the default, as if no variable were set; `$$` a dollar sign."""
    return VARIABLE.sub(lambda found: found.group(2) if found.group(1) == "-" else "", text).replace("$$", "$")


def _memory(text: str) -> str:
    """`512m` as Kubernetes writes it: `512Mi`."""
    return str(text)[:-1] + UNITS[str(text)[-1].lower()]
