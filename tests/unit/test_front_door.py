"""The Makefile's verbs and .env.example say what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.stack.env_example import render
from settings import ROOT

VERBS = (
    "demo", "test", "status", "urls", "logs", "down", "reset", "doctor", "walk", "load", "check", "lock",
    "replay-dead-letters", "evidence",
)  # fmt: skip


def make(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MINIMART_HOME": str(home)}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_bare_make_lists_every_verb(tmp_path: Path) -> None:
    shown = make(home=tmp_path).stdout
    assert {verb for verb in VERBS if not re.search(rf"^  {verb} +\S", shown, re.MULTILINE)} == set()


def test_every_verb_is_defined_once() -> None:
    verbs = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert sorted(verbs) == sorted(set(verbs))


def test_env_example_mirrors_the_settings() -> None:
    assert (ROOT / ".env.example").read_text() == render(), "run make env-example"


def test_env_example_changes_nothing_as_it_stands() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)


@pytest.mark.parametrize(
    ("verb", "code", "says"),
    [
        (("status",), 2, "down"),
        (("down",), 0, "nothing of ours runs"),
        (("logs", "S=recommender"), 2, "has no log"),
        (("kill", "S=redis"), 2, "make demo"),
        (("urls", "JSON=1"), 0, '"recommender": "http://'),
    ],
)
def test_a_verb_on_a_platform_that_does_not_run(tmp_path: Path, verb: tuple[str, ...], code: int, says: str) -> None:
    done = make(*verb, home=tmp_path / "home")
    assert done.returncode == code
    assert says in done.stdout + done.stderr


def test_reset_without_an_answer_drops_nothing(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("1\n")
    done = make("reset", home=tmp_path)
    assert done.returncode == 2
    assert "YES=1" in done.stderr
    assert (tmp_path / "VERSION").exists()


def test_reset_never_removes_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    done = make("reset", "YES=1", home=tmp_path)
    assert done.returncode == 2
    assert "does not look like ours" in done.stderr
    assert (tmp_path / "thesis.doc").exists()


def test_reset_drops_our_data(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "lake").mkdir(parents=True)
    (home / "VERSION").write_text("1\n")
    assert make("reset", "YES=1", home=home).returncode == 0
    assert not home.exists()


def test_a_wrong_setting_names_key_value_and_fix(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stack", "status"], cwd=ROOT, capture_output=True, text=True, timeout=20,
        env={**os.environ, "MINIMART_HOME": str(tmp_path), "MINIMART_SEED": "-1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "MINIMART_SEED = '-1'" in done.stderr
