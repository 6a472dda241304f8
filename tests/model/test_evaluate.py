"""An evaluation from files to the report on the planted toy: each protocol, the blend, what MLflow keeps, errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from adapters.errors import BadInput
from adapters.registry import open_registry
from models.recommenders.base import Floats, Histories, Recommender, Training
from pipelines.evaluate import __main__ as program
from pipelines.evaluate import compare as comparing
from pipelines.evaluate.blending import choose
from pipelines.evaluate.compare import Options, compare
from pipelines.evaluate.dataset import load
from pipelines.evaluate.measure import value
from pipelines.evaluate.progress import Progress
from pipelines.evaluate.protocols import leave_one_out
from pipelines.evaluate.report import report
from pipelines.evaluate.tuning import Tuner
from tests.model.planted import walks, write_folder, write_text

CHEAP = ("popularity", "co-occurrence", "blend")


def evaluated(path: Path, **options: Any) -> dict[str, Any]:
    asked = Options(**{"protocol": "leave_one_out", "models": CHEAP, "budget": 4.0, "threads": 1, **options})
    return report(compare(load(path), asked, Progress()), "a command", 1.0)


def ndcg(made: dict[str, Any], part: str = "all") -> dict[str, float]:
    return {row["model"]: row["metrics"]["ndcg@10"]["mean"] for row in made["rows"] if row["slice"] == part}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), walks())


def test_the_report_holds_what_is_promised(tmp_path: Path) -> None:
    made = json.loads(json.dumps(evaluated(write_text(tmp_path / "sequences.txt", walks()))))
    assert made["protocol"] == "leave_one_out"
    assert {"hardware", "commit", "at", "seed", "title", "command", "tuning", "blend", "minus_blend"} <= made.keys()
    for row in made["rows"]:
        assert {"model", "slice", "metrics", "fit_seconds", "users", "coverage"} <= row.keys()
        for k in (10, 20):
            names = ("recall", "ndcg", "map", "mrr", "hit_rate", "intra_list_diversity", "novelty")
            assert {f"{name}@{k}" for name in names} <= row["metrics"].keys()
        for found in row["metrics"].values():
            assert found["low"] <= found["mean"] <= found["high"]
    assert {"all", "cold users", "warm users"} <= {row["slice"] for row in made["rows"]}
    audit = made["audit"]
    assert audit["users"]["asked_in_test"] == 300
    assert audit["ties"]["treatment"].startswith("pessimistic")
    assert audit["ties"]["ndcg@10_if_optimistic"]["popularity"] >= audit["ties"]["ndcg@10_as_reported"]["popularity"]
    assert audit["seen_items"]["treatment"].endswith("neither competes nor counts")
    assert audit["users_compared"]["number"] == 300
    transition = audit["validation_transition"]
    kinds = ("as_reported", "if_in_histories_alone", "if_nowhere")
    reported, in_histories, nowhere = (transition[f"ndcg@10_{kind}"] for kind in kinds)
    assert reported.keys() == in_histories.keys() == nowhere.keys() >= {"co-occurrence", "popularity"}
    assert in_histories["co-occurrence"] > nowhere["co-occurrence"]  # the newest item says most about the next
    assert reported["co-occurrence"] == pytest.approx(ndcg(made)["co-occurrence"], abs=1e-5)


def test_without_a_refit_the_models_of_validation_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = Tuner.tune  # one trial each, the same in both runs
    monkeypatch.setattr(Tuner, "tune", lambda self, kind, seconds: tune(self, kind, 0.0))
    path = write_text(tmp_path / "sequences.txt", walks())
    learned, alone = evaluated(path), evaluated(path, refit=False)
    told = alone["audit"]["validation_transition"]
    assert told["treatment"].startswith("no refit")
    assert "ndcg@10_if_in_histories_alone" not in told
    assert ndcg(alone) == pytest.approx(
        learned["audit"]["validation_transition"]["ndcg@10_if_in_histories_alone"], abs=1e-5
    )
    assert ndcg(alone)["co-occurrence"] != ndcg(learned)["co-occurrence"]


def test_what_is_audited_is_drawn_from_all_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first half of the file can be foretold, the second cannot.
    easy, rng = walks(200), np.random.default_rng(3)
    hard = [[int(item) for item in rng.choice(40, size=6, replace=False)] for _ in range(200)]
    monkeypatch.setattr(comparing, "AUDITED", 100)
    made = evaluated(write_text(tmp_path / "halves.txt", [*easy, *hard]), models=("co-occurrence",))
    audit, all_users = made["audit"], ndcg(made)["co-occurrence"]
    assert audit["users_compared"]["number"] == 100
    assert audit["ties"]["ndcg@10_as_reported"]["co-occurrence"] == pytest.approx(all_users, abs=0.12)


def test_the_blend_is_at_least_as_good_as_the_best(tmp_path: Path) -> None:
    made = evaluated(write_text(tmp_path / "sequences.txt", walks()))
    assert ndcg(made)["co-occurrence"] > 1.5 * ndcg(made)["popularity"]
    assert made["minus_blend"]["co-occurrence"]["low"] <= 0
    assert made["minus_blend"]["popularity"]["high"] < 0
    considered = made["blend"]["validation"]
    if made["blend"]["weights"] is None:
        assert made["blend"]["kind"] == "best single model: co-occurrence"
        assert ndcg(made)["blend"] == ndcg(made)["co-occurrence"]
    else:
        assert considered[made["blend"]["kind"]] > max(considered[name] for name in ("popularity", "co-occurrence"))


@pytest.mark.parametrize("protocol", ["temporal", "strong_generalisation"])
def test_the_other_protocols(protocol: str, folder: Path) -> None:
    made = evaluated(folder, protocol=protocol, models=("popularity", "co-occurrence", "content"), ks=(10,))
    found = ndcg(made)
    assert found["co-occurrence"] > found["popularity"]
    assert found["content"] > found["popularity"]
    assert made["blend"] is None


def test_the_same_seed_gives_the_same_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = Tuner.tune  # without time there is one trial each, so that the clock has no say
    monkeypatch.setattr(Tuner, "tune", lambda self, kind, seconds: tune(self, kind, 0.0))
    one, two = (evaluated(folder, models=("co-occurrence", "content", "self-attention", "blend")) for _ in range(2))
    assert one["rows"][0]["metrics"] == two["rows"][0]["metrics"]
    assert ndcg(one) == ndcg(two)
    assert one["blend"] == two["blend"]


def test_repeats_are_kept_where_people_repeat(tmp_path: Path) -> None:
    rows = [[*walk[:4], walk[0], walk[1], walk[2]] for walk in walks(60)]
    made = evaluated(write_text(tmp_path / "again.txt", rows), models=("popularity", "co-occurrence"))
    assert made["audit"]["seen_items"]["treatment"].startswith("what a user has touched competes")
    assert made["audit"]["seen_items"]["repeats_in_validation"] == 1.0
    assert made["audit"]["seen_items"]["ndcg@10_if_masked"]["popularity"] == 0.0
    masked = evaluated(write_text(tmp_path / "again.txt", rows), models=("popularity",), seen="mask")
    assert ndcg(masked)["popularity"] == 0.0


class Known(Recommender):
    """Puts the wanted item first for a share of the users; noise for the rest."""

    name = "known"
    default = {"share": 0.5, "seed": 1}

    def fit(self, training: Training) -> None:
        self.n_items = training.n_items

    def score(self, histories: Histories) -> Floats:
        items = histories.sequences.items[histories.sequences.starts[1:] - 1]
        rng = np.random.default_rng(self.config["seed"])
        scores = rng.random((len(items), self.n_items)).astype(np.float32)
        wanted = (items + 1) % self.n_items
        sure = np.isin(items % 10, np.arange(round(self.config["share"] * 10)))
        scores[np.flatnonzero(sure), wanted[sure]] = 2.0
        return scores


def test_noise_never_pulls_the_blend_below_the_best(tmp_path: Path) -> None:
    ring = [[(user * 7 + step) % 90 for step in range(5)] for user in range(200)]
    data = load(write_text(tmp_path / "ring.txt", ring))
    # Items of a text file are numbered in the order of words; here "one more" must be the ring's own next.
    parts = leave_one_out(data, 7)
    names = np.array(sorted(str(i) for i in range(90)), dtype=np.int64)
    for part in (parts.validation, parts.test):
        for sequences in (part.learn, part.questions.relevant, part.questions.histories.sequences):
            sequences.items[:] = names[sequences.items]
    models: dict[str, Recommender] = {"good": Known(share=0.6), "noise": Known(share=0.0, seed=2)}
    for model in models.values():
        model.fit(Training(parts.validation.learn, data.catalogue))
    choice = choose(models, parts.validation.questions, 90, mask=True, k=10, seed=7)

    def worth(scorer: Any) -> float:
        return float(value(scorer, parts.test.questions, 90, mask=True, k=10).mean())

    blended = worth(lambda h: choice.combine({n: m.score(h) for n, m in models.items()}, h, mask=True))
    assert blended >= worth(models["good"].score) - 0.02
    assert blended > worth(models["noise"].score) + 0.3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"models": ("sasrec",)}, "--models sasrec: there is no such model; allowed: all, blend, popularity"),
        ({"ks": (0,)}, "numbers from 1 to 1000"),
        ({"budget": 0.0}, "seconds from 1 are allowed"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as found:
        Options(**{"protocol": "leave_one_out", **wrong})
    assert says in found.value.detail


def test_the_program(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    home, out = tmp_path / "home", tmp_path / "out" / "report.json"
    monkeypatch.setenv("MINIMART_HOME", str(home))
    open_registry("", home)._experiment("evaluate")  # a tracking store that has been used
    arguments = ["--data", str(folder), "--models", "popularity,co-occurrence", "--budget", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    program.main()
    made = json.loads(out.read_text())
    assert [row["model"] for row in made["rows"] if row["slice"] == "all"] == ["popularity", "co-occurrence"]
    assert str(folder) not in out.read_text()
    shown = capsys.readouterr().out
    assert "tuning co-occurrence" in shown
    assert "kept in MLflow" in shown
    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("evaluate").experiment_id])
    assert run.data.metrics["co-occurrence.ndcg_at_10"] == pytest.approx(ndcg(made)["co-occurrence"])
    assert len(client.get_metric_history(run.info.run_id, "co-occurrence.validation")) >= 1
    assert [file.path for file in client.list_artifacts(run.info.run_id, "curves")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "nowhere"], "there is no such file or folder"),
        (["--data", ".", "--k", "ten"], "whole numbers separated by commas"),
        (["--protocol", "temporal"], "--protocol needs --data"),
    ],
)
def test_errors_of_the_program_are_one_line(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    with pytest.raises(SystemExit) as found:
        program.main()
    assert says in f"{found.value.code} {capsys.readouterr().err}"
    assert found.value.code != 0
