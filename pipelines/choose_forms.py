"""Choose the form in which each ranker serves: its trees, or the student network that learned from them.

A student takes a fraction of the trees' time. It serves where it keeps their quality on the window after the backtest,
from which neither learned: requests of a later day, as those that the production models will answer. Requests held out
of the trees' own day would flatter the trees, which know that day's products.
"""

from __future__ import annotations

import json
from typing import Any, Final

from adapters.registry import open_registry
from models.bootstrap import paired
from models.contributions import Form
from models.ranker import RankingRows, ndcg_of
from pipelines.build_dataset import load_rows
from pipelines.rankers import FORMS, RANKERS, SERVES, STUDENT, Fitted, export, load_booster, scores_of
from pipelines.run_record import record
from pipelines.stages import Context, Stage, open_context

LOSE: Final = 0.01
"""Share of the trees' NDCG@10 that a student may lack and still serve."""


def run(context: Context, stage: Stage) -> None:
    """Write `forms.json` of the backtest: form, both qualities and their paired difference, by ranker.

    And `<name>/model.onnx`: the form that serves.
    """
    rows = load_rows(stage)[0]
    found = {name: _compared(stage, name, rows, context.settings.seed) for name in RANKERS}
    for name, one in found.items():
        if one["form"] == "trees":
            export(stage, name, Fitted(load_booster(stage, name)), rows)
        else:
            stage.path(f"{name}/{SERVES}").write_bytes(stage.path(f"{name}/{STUDENT}").read_bytes())
        context.say(f"{name}: NDCG@10 {one['trees']:.4f} by trees, {one['student']:.4f} by their student: "
                    f"the {one['form']} serve{'s' if one['form'] == 'student' else ''}")  # fmt: skip
    stage.path(FORMS).write_text(json.dumps(found, indent=2))
    _log(context, stage, found)


def _compared(stage: Stage, name: str, rows: RankingRows, seed: int) -> dict[str, Any]:
    trees = ndcg_of(rows, load_booster(stage, name).predict(rows.features))
    student = ndcg_of(rows, scores_of(stage, name, rows.features, STUDENT))
    form: Form = "student" if student.mean() >= (1 - LOSE) * trees.mean() else "trees"
    return {
        "form": form, "requests": len(trees), "trees": float(trees.mean()), "student": float(student.mean()),
        "student_minus_trees": paired(student, trees, seed=seed).as_dict(),
    }  # fmt: skip


def _log(context: Context, stage: Stage, found: dict[str, dict[str, Any]]) -> None:
    registry = open_registry(context.settings.mlflow_uri, context.settings.home)
    reads = [stage.path("dataset/rows.npz"), *(stage.path(f"{name}/{STUDENT}") for name in RANKERS)]
    with record(registry, context, "choose_forms", stage, {"lose": LOSE}, reads) as made:
        for name, one in found.items():
            made.metrics({f"{name}_{form}_ndcg_at_10": one[form] for form in ("trees", "student")})
        made.file(FORMS, stage.path(FORMS))


def main() -> None:
    context = open_context()
    run(context, context.stage("backtest"))


if __name__ == "__main__":
    main()
