"""What a program is made of: the digest of a module and of every project module that it imports, however far down.

The key of a step is made from it, so that a change runs again what it can change and nothing else. Read from the
source, nothing is imported. Comments, docstrings and layout do not count. What is left out: `settings.py` (a step's key
holds the values that matter to it), imports for type checkers alone, and modules that a program finds by name at run
time: name those as well.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from adapters.provenance import ROOT

VALUES_ONLY: Final = ("settings",)  # modules whose text does not matter
_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_digest(*modules: str, root: Path = ROOT) -> str:
    """SHA-256 (hex) of the code of `modules` (dotted names under `root`) and of all that they import from there.

    Raises ValueError for a module that does not exist.
    """
    found = hashlib.sha256()
    for name in closure(*modules, root=root):
        found.update(f"{name}\n{_code(_file(name, root))}\n".encode())
    return found.hexdigest()


def closure(*modules: str, root: Path = ROOT) -> list[str]:
    """The names of `modules` and of the project modules that importing them imports, sorted."""
    if unknown := [name for name in modules if _file(name, root) is None]:
        raise ValueError(f"no such module under {root}: {', '.join(unknown)}")
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen or name in VALUES_ONLY:
            continue
        seen.add(name)
        parents = _parents(name)
        waiting += [one for one in (*parents, *_imports(_file(name, root))) if _file(one, root) is not None]
    return sorted(seen)


def _parents(name: str) -> Iterator[str]:
    """The packages of a module: importing a.b.c runs a and a.b."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _file(name: str, root: Path) -> Path | None:
    """The file of a project module; None for a module from elsewhere."""
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imports(file: Path | None) -> tuple[str, ...]:
    """Every dotted name that a file imports; for `from a import b` both `a` and `a.b`, which may be a module."""
    return _read(file, file.stat().st_mtime_ns)[1] if file else ()


def _code(file: Path | None) -> str:
    return _read(file, file.stat().st_mtime_ns)[0] if file else ""


@cache
def _read(file: Path, _changed_ns: int) -> tuple[str, tuple[str, ...]]:
    """(the code without comments and docstrings, the names that it imports)."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    names = tuple(_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree), names


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        yield from (name for child in node.orelse for name in _names(child))
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
