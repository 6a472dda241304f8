"""The README says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import evidence

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", evidence.PAGES, ids=lambda p: p.name)
def test_generated_blocks_are_up_to_date(page: Path) -> None:
    current = page.read_text(encoding="utf-8")
    assert evidence.render(current, evidence.blocks(page)) == current, "run `make evidence`"


def test_tree_names_every_module_and_each_has_a_summary() -> None:
    lines = evidence.tree(modules=True).splitlines()[1:-1]
    assert not [line for line in lines if len(line.split(None, 1)) < 2]
    names = {line.split()[0] for line in lines}
    for package in evidence.PACKAGES:
        for module in (ROOT / package).glob("*.py"):
            assert module.name in names or module.name.startswith("__")
    rooms = {line.split()[0] for line in evidence.tree().splitlines()}
    assert {f"{p.parent.name}/" for p in (ROOT / "services").glob("*/__init__.py")} <= names & rooms


def test_every_path_that_the_readme_names_exists() -> None:
    text = evidence.README.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:services|feature_repo|adapters|models|pipelines|tests|bench|docs)/[\w/.-]+)`", text))
    linked = set(re.findall(r"\]\((?!http)([^)#]+)\)", text))
    assert named
    assert not [path for path in named | linked if not (ROOT / path).exists()]


def test_the_walk_opens_at_most_ten_files() -> None:
    walk = evidence.README.read_text(encoding="utf-8").split("## One event", 1)[1].split("\n## ", 1)[0]
    steps = "\n".join(line for line in walk.splitlines() if re.match(r"\d+\. ", line))
    assert 0 < len(set(re.findall(r"`([\w/]+\.py)`", steps))) <= 10


def test_a_changed_number_is_noticed() -> None:
    generated = evidence.blocks(evidence.README) | {"numbers": "something else"}
    current = evidence.README.read_text(encoding="utf-8")
    assert evidence.render(current, generated) != current


def test_a_missing_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="markers of the generated block 'tree'"):
        evidence.render("# nothing here", {"tree": "x"})


def test_every_make_verb_in_the_documents_exists() -> None:
    verbs = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in [evidence.README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        used = set(re.findall(r"(?:^|`)\s*make ([a-z][a-z-]*)", text, re.M))
        assert used <= verbs, f"{page.name}: {sorted(used - verbs)}"
