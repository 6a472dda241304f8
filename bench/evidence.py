"""Write the generated parts of README.md and docs: trees, picture, numbers, results. `--check` only compares (exit 1).

The tree comes from the modules' own docstrings, the picture from the one list of parts, and the numbers from the files
under `bench/results`, so that nobody types any of them.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
HOUSE = ROOT / "docs" / "house.md"
EVALUATION = ROOT / "docs" / "evaluation.md"
ROLLOUT = ROOT / "docs" / "rollout.md"
PAGES = (README, HOUSE, EVALUATION, ROLLOUT)
PACKAGES = ("feature_repo", "adapters", "models", "pipelines", "services", "bench")
WIDTH = 30
REST = (
    ("deploy/", "native set-up, images and compose, Kubernetes, dashboards, alerts, Triton, ClickHouse's tables"),
    ("tests/", "unit/ (no network) integration/ (one real server) model/ data/ e2e/ (the platform) compose/ (Docker)"),
    ("docs/", "your own data, and why it is built as it is"),
    ("requirements/", "locked with hashes: serving, platform, training, dev, triton, clickhouse, mlflow"),
    ("settings.py", "the only reader of the environment; .env.example mirrors it"),
    ("Makefile", "the front door: bare `make` prints help, CI uses the same verbs"),
)


def summary(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0].rstrip(".")


def _line(indent: int, name: str, text: str) -> str:
    label = " " * indent + name
    return f"{label:<{WIDTH}} {text}".rstrip()


def _folder(folder: Path, indent: int, *, modules: bool) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            lines.append(_line(indent, f"{path.name}/", summary(path / "__init__.py")))
            if modules:
                lines += _folder(path, indent + 2, modules=True)
        elif modules and path.suffix == ".py" and not path.name.startswith("__"):
            lines.append(_line(indent, path.name, summary(path)))
    return lines


def tree(*, modules: bool = False) -> str:
    """The annotated tree: a line per room, or with `modules` one per module too."""
    lines: list[str] = []
    for package in PACKAGES:
        folder = ROOT / package
        lines.append(_line(0, f"{package}/", summary(folder / "__init__.py")))
        lines += _folder(folder, 2, modules=modules)
    lines += [_line(0, name, text) for name, text in REST]
    return "```text\n" + "\n".join(lines) + "\n```"


def picture() -> str:
    """The parts and who speaks to whom, as a Mermaid flow chart."""
    from pipelines.stack.parts import mermaid

    return f"```mermaid\n{mermaid()}\n```"


def blocks(page: Path) -> dict[str, str]:
    """Every generated block of a page by its marker's name."""
    from bench.numbers import guardrails, numbers, retrieval

    if page == HOUSE:
        return {"tree": tree(modules=True)}
    if page == EVALUATION:
        return {"results": retrieval()}
    if page == ROLLOUT:
        return {"guardrails": guardrails()}
    return {"picture": picture(), "tree": tree(), "numbers": numbers()}


def render(page: str, generated: dict[str, str]) -> str:
    """A page's text with every generated block replaced. Raises ValueError if a marker is missing."""
    for name, text in generated.items():
        start, end = f"<!-- {name}: start", f"<!-- {name}: end -->"
        if start not in page or end not in page:
            raise ValueError(f"the page lacks the markers of the generated block '{name}'")
        head, rest = page.split(start, 1)
        opening, tail = rest.split("-->", 1)
        page = f"{head}{start}{opening}-->\n{text}\n{end}{tail.split(end, 1)[1]}"
    return page


def main() -> int:
    stale = []
    for page in PAGES:
        current = page.read_text(encoding="utf-8")
        wanted = render(current, blocks(page))
        if wanted != current:
            stale.append(str(page.relative_to(ROOT)))
        if "--check" not in sys.argv[1:]:
            page.write_text(wanted, encoding="utf-8")
    if "--check" not in sys.argv[1:]:
        pages = ", ".join(str(page.relative_to(ROOT)) for page in PAGES)
        print(f"{pages}: trees, picture, numbers and results written")
        return 0
    if stale:
        print(f"{', '.join(stale)}: not what the code and bench/results say: run `make evidence`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
