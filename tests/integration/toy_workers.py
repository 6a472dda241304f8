"""A toy service with two pinned workers, as a program: `python -m tests.integration.toy_workers PORT GATE`.

`/slow` answers once the file GATE is there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from adapters.web import create_app
from adapters.workers import merged_metrics, serve_workers


def factory(gate: Path, shared: Path) -> FastAPI:
    app = create_app("toy", title="Toy", ready=dict, metrics=partial(merged_metrics, shared))

    @app.get("/pid")
    async def pid() -> dict[str, Any]:
        return {"pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0))}

    @app.get("/slow")
    async def slow() -> dict[str, int]:
        while not gate.exists():
            await asyncio.sleep(0.05)
        return {"pid": os.getpid()}

    return app


if __name__ == "__main__":
    sys.exit(serve_workers(partial(factory, Path(sys.argv[2])), "127.0.0.1", int(sys.argv[1]), "toy", 2, pin=True))
