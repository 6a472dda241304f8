"""Ctrl-C in the middle of `make demo` leaves nothing running, and what was done so far is kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.stack.launch import port_open
from pipelines.stack.parts import PARTS
from pipelines.stack.supervisor import MARK
from settings import ROOT, Settings


def free_offset() -> int:
    """An offset at which every port of the platform is free."""
    for offset in random.sample(range(10_000, 30_000, 100), 50):
        settings = Settings(port_offset=offset)
        if not any(port_open(settings.host, settings.port(port)) for part in PARTS for port in part.ports):
            return offset
    raise AssertionError("no free range of ports")


def marked(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    home, offset = tmp_path / "home", free_offset()
    environment = {
        **os.environ, "MINIMART_HOME": str(home), "MINIMART_PORT_OFFSET": str(offset), "PYTHONUNBUFFERED": "1",
        "MINIMART_SIM_SHOPPERS": "100", "MINIMART_SIM_ITEMS": "100", "MINIMART_SIM_DAYS": "7",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.stack", "demo"], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        for line in demo.stdout:
            if "kafka: ready" in line:
                break
        assert len(marked(home)) >= 3
        time.sleep(1)  # into the middle of a step
        demo.send_signal(number)
        _, error = demo.communicate(timeout=90)
    assert demo.returncode == 130, error
    assert marked(home) == []
    settings = Settings(home=home, port_offset=offset)
    listening = [part.name for part in PARTS for port in part.ports if port_open(settings.host, settings.port(port))]
    assert listening == []
    assert (home / "VERSION").exists()
