"""Where quality is measured: the funnel on the platform's own history, and retrieval models on any data by protocol"""

from __future__ import annotations

from pipelines.evaluate.funnel import run

__all__ = ["run"]
