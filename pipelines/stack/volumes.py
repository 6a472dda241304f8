"""The first job of the composed platform: may this version use these volumes, on this machine? One clear line if not.

    python -m pipelines.stack.volumes

Ends with 2 where the volumes are of another version or of another marketplace, the disk is nearly full or the memory
too little. Writes VERSION and identity.json into new volumes.
"""

from __future__ import annotations

import sys
from typing import Final

from adapters.errors import MinimartError
from pipelines.stack import preflight
from settings import Settings, load_settings

DROP: Final = (
    "drop the volumes with `docker compose down -v` (make reset STACK=compose), or keep them and start beside them "
    "with COMPOSE_PROJECT_NAME=another"
)


def check(settings: Settings) -> str:
    """What was found, in words. Raises Misconfigured with the fix."""
    preflight.check_memory(
        settings.memory_needed_gib, "give Docker more (Docker Desktop: Settings, Resources, Memory: 8 GiB), or"
    )
    preflight.check_disk(settings.home, settings.disk_needed_gib, "e.g. with docker system prune")
    preflight.check_state(settings.home, DROP)
    identity = preflight.identity_of(settings)
    preflight.check_identity(settings, identity, DROP)
    what = "your own data" if identity["source"] == "import" else f"{identity['shoppers']} shoppers"
    return f"volumes of version {preflight.STATE_VERSION}, {what}: all right"


def main() -> None:
    try:
        print(check(load_settings()), flush=True)
    except MinimartError as error:
        print(f"minimart: {error.detail}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
