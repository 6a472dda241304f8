"""Train the pre-ranker: 50 shallow trees that cut about 1,000 candidates to 200 within a few milliseconds."""

from __future__ import annotations

from models.ranker import PRERANKER
from pipelines.rankers import fit
from pipelines.stages import Context, Stage, open_context


def run(context: Context, stage: Stage) -> None:
    """Write the stage's `preranker/` files; in production also register the version."""
    fit(context, stage, "preranker", PRERANKER)


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
