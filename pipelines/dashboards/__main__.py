"""Writes deploy/grafana/dashboards/*.json from contents.py: `make dashboards`."""

from __future__ import annotations

from pathlib import Path

from pipelines.dashboards.contents import DASHBOARDS
from pipelines.dashboards.panels import render
from settings import ROOT

FOLDER = ROOT / "deploy" / "grafana" / "dashboards"


def files() -> dict[str, str]:
    """File name -> content, of every dashboard."""
    return {f"{one.uid}.json": render(one) for one in DASHBOARDS}


def write(folder: Path) -> int:
    """Write every dashboard and remove those that are no more; gives how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(wanted)


if __name__ == "__main__":
    print(f"{write(FOLDER)} dashboards in {FOLDER}")
