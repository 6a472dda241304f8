"""Logs: one JSON object a line, ours and the libraries'."""

from __future__ import annotations

import json
import subprocess
import sys

from settings import ROOT

LIBRARY = """
import logging
from adapters.telemetry import setup_logging
setup_logging("shop")
try:
    {}["nothing"]
except KeyError:
    logging.getLogger("a.library").error("it failed", exc_info=True)
logging.getLogger("a.library").warning("it goes on")
logging.getLogger("a.library").info("not told")
"""


def test_what_a_library_caught_is_one_line_with_the_place() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    failed, goes_on = (json.loads(line) for line in done.stdout.splitlines())
    assert failed["event"] == "it failed"
    assert failed["error"] == "KeyError: 'nothing'"
    assert failed["at"] == "<string>:6"
    assert (failed["service"], failed["logger"], failed["level"]) == ("shop", "a.library", "error")
    assert "Traceback" not in done.stdout
    assert "error" not in goes_on
