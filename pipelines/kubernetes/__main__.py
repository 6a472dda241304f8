"""Writes deploy/k8s/base from docker-compose.yml: `make kubernetes`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipelines.kubernetes.manifests import dump, manifests
from settings import ROOT

FOLDER: Final = ROOT / "deploy" / "k8s" / "base"
HEAD: Final = "# Written by `make kubernetes` from docker-compose.yml and pipelines/kubernetes; change it there.\n"


def files() -> dict[str, str]:
    """File name -> content."""
    out = {name: HEAD + dump(objects) for name, objects in sorted(manifests().items())}
    listed = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": sorted(out)}
    return out | {"kustomization.yaml": HEAD + dump([listed])}


def write(folder: Path) -> int:
    """Write every file and remove those that are no more; gives how many there are."""
    wanted = files()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(wanted)


if __name__ == "__main__":
    print(f"{write(FOLDER)} files in {FOLDER}")
