"""Where quality is measured: the funnel on the platform's own history, and retrieval models on any data by protocol"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.stages import Context, Stage


def run(context: Context, stage: Stage) -> dict[str, Any]:
    """The step of the table of contents: the funnel against its parts on the last window."""
    from pipelines.evaluate import funnel  # here, so that the protocols do without MLflow and the ranker's libraries

    return funnel.run(context, stage)
