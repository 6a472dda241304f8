"""Train the ranker: lambdarank over the rows of past windows, with the position bias learned apart."""

from __future__ import annotations

from models.ranker import RANKER
from pipelines.rankers import fit
from pipelines.stages import Context, Stage, open_context


def run(context: Context, stage: Stage) -> None:
    """Write the stage's `ranker/` files; in production also register the version."""
    fit(context, stage, "ranker", RANKER)


def main() -> None:
    context = open_context()
    run(context, context.stage("production"))


if __name__ == "__main__":
    main()
