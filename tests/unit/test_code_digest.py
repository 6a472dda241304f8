"""A step's key changes with the code that the step runs, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.code_digest import closure, code_digest
from pipelines import run_all
from pipelines.run_all import STEPS

FILES = {
    "app/__init__.py": "",
    "app/main.py": "from lib import tools\nimport lib.numbers as n\nimport os\ndef go():\n    import lib.late\n",
    "lib/__init__.py": "KIND = 1\n",
    "lib/tools.py": "from __future__ import annotations\nfrom lib.deep import one\n",
    "lib/deep.py": '"""Words."""\n\n\ndef one() -> int:\n    """More words."""\n    return 1\n',
    "lib/numbers.py": "if TYPE_CHECKING:\n    from lib.aside import Thing\nelse:\n    import lib.taken\n",
    "lib/late.py": "x = 1\n",
    "lib/aside.py": "class Thing: ...\n",
    "lib/taken.py": "",
    "settings.py": "import lib.aside\n",
    "lib/circle.py": "import app.main\nimport settings\n",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_everything_that_is_imported_counts_and_nothing_else(root: Path) -> None:
    below = {"lib", "lib.tools", "lib.deep", "lib.numbers", "lib.late", "lib.taken"}
    assert set(closure("app.main", root=root)) == {"app", "app.main"} | below
    (root / "lib" / "deep.py").write_text("import lib.circle\n")
    assert set(closure("app.main", root=root)) == {"app", "app.main", "lib.circle"} | below


@pytest.mark.parametrize("name", ["lib/deep.py", "lib/__init__.py", "lib/late.py", "app/main.py"])
def test_a_change_below_changes_the_digest(root: Path, name: str) -> None:
    before = code_digest("app.main", root=root)
    (root / name).write_text(FILES[name] + "\nmore = 2\n")
    assert code_digest("app.main", root=root) != before


@pytest.mark.parametrize("name", ["lib/aside.py", "lib/circle.py", "settings.py"])
def test_a_change_elsewhere_does_not(root: Path, name: str) -> None:
    before = code_digest("app.main", root=root)
    (root / name).write_text(FILES[name] + "\nmore = 2\n")
    assert code_digest("app.main", root=root) == before


def test_words_and_layout_do_not_count(root: Path) -> None:
    before = code_digest("app.main", root=root)
    (root / "lib" / "deep.py").write_text("# A comment.\ndef one() -> int:\n\n    return (1)\n")
    assert code_digest("app.main", root=root) == before


def test_an_unknown_module_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"app\.nothing"):
        code_digest("app.main", "app.nothing", root=root)


def test_the_pipelines_of_this_project() -> None:
    trains = closure("pipelines.train_ranker")
    assert {"pipelines.rankers", "models.ranker", "models.ranking_features"} <= set(trains)
    assert not {"pipelines.why", "pipelines.walk", "pipelines.publish", "settings", "pipelines.run_all"} & set(trains)
    assert not any(name.startswith(("services", "pipelines.stack")) for step in STEPS
                   for name in closure(f"pipelines.{step.pipeline}"))  # fmt: skip


def test_a_change_runs_again_what_reads_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    class Here:
        meta = {"data_version": "1", "as_of_ms": 1}
        settings = type("Values", (), {"seed": 7, "mlflow_uri": ""})

    def changed(module: str) -> set[str]:
        monkeypatch.setattr(run_all, "code_digest", lambda name: name)
        before = run_all.keys(Here)  # type: ignore[arg-type]
        monkeypatch.setattr(run_all, "code_digest", lambda name: name + "!" * (name == module))
        after = run_all.keys(Here)  # type: ignore[arg-type]
        return {name for name in before if before[name] != after[name]}

    assert changed("pipelines.publish") == {"publish-production"}
    assert changed("pipelines.evaluate") == {"evaluate-backtest", "publish-production"}
    forms = {"choose_forms-backtest", "train_preranker-production", "train_ranker-production", "evaluate-backtest",
             "publish-production"}  # fmt: skip
    assert changed("pipelines.choose_forms") == forms
    assert changed("pipelines.train_ranker") == forms | {"train_ranker-backtest"}
    assert len(changed("pipelines.train_two_tower")) == len([s for s in STEPS if s.pipeline != "build_cooccurrence"])
