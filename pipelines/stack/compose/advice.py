"""What Docker says when it cannot, as one clear line with the fix. Knows Docker's words only, never the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

NOT_INSTALLED: Final = (
    "Docker is not installed: https://docs.docker.com/engine/install says how (Docker Desktop on macOS and Windows); "
    "without it, make demo runs the same platform natively"
)
_PORT: Final = re.compile(
    r"(?:Bind for \S*?:(\d+) failed|listen tcp4? \S*?:(\d+): bind|exposing port \w+ \S*?:(\d+) ->)", re.IGNORECASE
)
_KNOWN: Final = (
    (r"'compose' is not a docker command|unknown shorthand flag: 'd'|unknown command: docker compose",
     "Docker has no compose plugin: install docker-compose-plugin (Debian, Ubuntu: apt install docker-compose-plugin) "
     "or Docker Desktop"),
    (r"permission denied while trying to connect|dial unix \S+: connect: permission denied",
     "this user may not talk to the Docker engine: sudo usermod -aG docker $USER, then log out and in again"),
    (r"cannot connect to the docker daemon|is the docker daemon running|error during connect",
     "the Docker engine does not run: sudo systemctl start docker (macOS, Windows: start Docker Desktop)"),
    (r"no space left on device|disk quota exceeded",
     "Docker's disk is full: docker system df shows what is on it, docker builder prune and docker image prune free "
     "some; Docker Desktop: Settings, Resources, Disk"),
    (r"cannot allocate memory|out of memory",
     "too little memory for the containers: close something, or give Docker more (Docker Desktop: Settings, "
     "Resources, Memory: 8 GiB)"),
    (r"toomanyrequests|pull rate limit",
     "Docker Hub limits anonymous pulls: docker login, or try again in some hours"),
    (r"no such host|i/o timeout|TLS handshake timeout|failed to resolve reference|connection refused.*registry",
     "an image could not be pulled: is this machine online, and is a proxy set in Docker's own settings?"),
    (r"no configuration file provided", "there is no docker-compose.yml here: run this in Minimart's folder"),
)  # fmt: skip


def explain(said: str, ports: Mapping[int, str] | None = None) -> str:
    """The fix for what Docker said, or the end of what it said. `ports` maps a published port to its setting."""
    if found := _PORT.search(said):
        return port_taken(int(next(filter(None, found.groups()))), ports or {})
    for pattern, fix in _KNOWN:
        if re.search(pattern, said, re.IGNORECASE):
            return fix
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return "\n".join(lines[-5:]) or "docker compose failed and said nothing"


def port_taken(port: int, ports: Mapping[int, str]) -> str:
    """One line for a port that another program has."""
    moves = f"set {ports[port]} in .env" if port in ports else "move it in .env"
    return f"port {port} is in use: stop what has it (who: ss -ltnp 'sport = :{port}'), or {moves} to another number"


def settings_of_ports(compose_file: str) -> dict[int, str]:
    """Which variable of a compose file sets which published port, from its `${NAME:-8082}`."""
    return {int(port): name for name, port in re.findall(r"\$\{(\w+_PORT):-(\d+)\}", compose_file)}
