"""Steps are skipped when nothing changed, run again when something did, and fail with the end of their log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from adapters.errors import Unavailable
from pipelines.stack.demo import steps
from pipelines.stack.steps import Runner, Step

ECHO = Step("echo", "says something", "timeit", ("-n", "1", "pass"), key="a", set="dev")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path, Console(file=io.StringIO()))


def test_a_step_runs_once_for_one_key_and_again_for_another(runner: Runner) -> None:
    assert runner.run(ECHO)
    assert not runner.run(ECHO)
    assert runner.run(Step(ECHO.name, ECHO.what, ECHO.module, ECHO.arguments, key="b", set="dev"))
    assert "per loop" in (runner.home / "logs" / "step-echo.log").read_text()


def test_a_step_without_a_key_runs_every_time(runner: Runner) -> None:
    again = Step(ECHO.name, ECHO.what, ECHO.module, ECHO.arguments, set="dev")
    assert runner.run(again)
    assert runner.run(again)


def test_a_failed_step_says_why_and_leaves_no_stamp(runner: Runner) -> None:
    broken = Step("broken", "cannot", "timeit", ("--no-such-flag",), key="a", set="dev")
    with pytest.raises(Unavailable, match=r"(?s)broken ended with 2.*no-such-flag"):
        runner.run(broken)
    with pytest.raises(Unavailable):
        runner.run(broken)


def test_new_data_makes_everything_after_it_again() -> None:
    simulated = {"source": "simulator", "seed": 7, "shoppers": 10, "items": 10, "days": 7}
    first, second = steps(simulated), steps({**simulated, "seed": 8})
    changed = {a.name for a, b in zip(first, second, strict=True) if a.key != b.key}
    assert changed == {"history", "catalogue", "online"}
    assert first[-1].key is None  # the models' pipelines keep stamps of their own


def test_own_data_is_imported_instead_of_simulated() -> None:
    first = steps({"source": "import", "folder": "/data"})[0]
    assert (first.module, first.arguments) == ("pipelines.import_data", ("--data", "/data"))
