"""One small platform of real parts for all end-to-end tests: its own home, its own ports, its own simulated world.

It is brought up by the same code as `make demo` and ended after the last test. To test against a platform that already
runs, name its home in MINIMART_E2E_HOME (and its MINIMART_PORT_OFFSET); that one is left running.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import ROOT, Settings
from tests.e2e.platform import SMALL, Platform

DEMO_SECONDS = 900


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform, ready. Fails with the end of the demo's output where it does not come up."""
    named = os.environ.get("MINIMART_E2E_HOME")
    if named:
        yield Platform(Settings(home=Path(named)))
        return
    settings = Settings(home=tmp_path_factory.mktemp("platform"), port_offset=_free_offset(), **SMALL)
    mine = Platform(settings)
    log = settings.home.parent / "demo.log"
    try:
        with log.open("w") as out:
            done = subprocess.run(
                [sys.executable, "-m", "pipelines.stack", "demo"],
                cwd=ROOT,
                env=mine.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=DEMO_SECONDS,
                check=False,
            )
        assert done.returncode == 0, f"the platform did not come up:\n{log.read_text()[-4000:]}"
        yield mine
    finally:
        subprocess.run(
            [sys.executable, "-m", "pipelines.stack", "down"], cwd=ROOT, env=mine.environment, timeout=120, check=False
        )


def _free_offset() -> int:
    """The first offset at which none of the platform's ports is taken."""
    ports = [f.default for name, f in Settings.model_fields.items() if name.endswith("_port")]
    for offset in range(7000, 30000, 500):
        if not any(_taken(port + offset) for port in ports):
            return offset
    raise AssertionError("no free range of ports between 15000 and 38000")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test's time includes bringing the platform up; what leaves drift behind comes last."""
    here = Path(__file__).parent
    items.sort(key=lambda item: "drift_started_in_the_console" in item.name)
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(DEMO_SECONDS + 300))
