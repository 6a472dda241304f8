"""Jars beside the Python sets: downloaded once, and never run unless each is what its digest file says."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from adapters.errors import Corrupt
from settings import ROOT


def install(folder: Path, version: str, digests: Path, resolve: Callable[[Path], list[Path]]) -> list[Path]:
    """The jars in `folder`, brought there by `resolve(scratch folder)` if they are not. Raises Corrupt, Unavailable."""
    with _locked(folder.with_suffix(".lock")):
        jars = sorted(folder.glob("*.jar"))
        if (folder / version).exists() and len(jars) == len(expected(digests)):
            return jars
        scratch = folder.with_suffix(".download")
        resolved = resolve(scratch)
        check(resolved, digests, scratch)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for jar in resolved:
            shutil.copy2(jar, folder / jar.name)
        (folder / version).touch()
        shutil.rmtree(scratch, ignore_errors=True)
        return sorted(folder.glob("*.jar"))


def check(jars: list[Path], digests: Path, folder: Path) -> None:
    """Raises Corrupt when the jars are not exactly those of the digest file."""
    wanted = expected(digests)
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        listed = digests.relative_to(ROOT)
        raise Corrupt(f"jars differ from {listed}: {', '.join(wrong)}; remove {folder} and try again")


def expected(digests: Path) -> dict[str, str]:
    """File name -> SHA-256."""
    pairs = (line.split()[:2] for line in digests.read_text().splitlines())
    return {name: digest for digest, name in pairs}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: two test runs may both find the jars missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
