"""`python -m pipelines.parity`: exit 0 where everything is equal, 1 on one mismatch, 2 where the run itself failed."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console

from adapters.errors import MinimartError
from pipelines.parity import report
from pipelines.parity.engines import ENGINES
from pipelines.parity.prove import LONG, SHORT, prove
from settings import load_settings

SHORT_BELOW = 100_000


def main() -> None:
    chosen = _parser().parse_args()
    settings = load_settings()
    console = Console(width=None if sys.stdout.isatty() else 160)
    began = time.monotonic()

    def tell(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  " + text.replace("[", "\\["), highlight=False)

    try:
        from feature_repo.features import PLAN  # Feast takes seconds to import, and --help should not wait for it

        outcome = prove(
            PLAN, events_wanted=chosen.events, seed=settings.seed if chosen.seed is None else chosen.seed,
            engine_name=chosen.engine, python=sys.executable, tell=tell,
            form=SHORT if chosen.events < SHORT_BELOW else LONG)
    except (MinimartError, ValueError) as error:
        console.print(f"[red]the proof cannot be led[/]: {getattr(error, 'detail', error)}", highlight=False)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        console.print("[yellow]interrupted; all servers were stopped[/]")
        raise SystemExit(130) from None
    document, picture = report.write(outcome, settings.out / "parity")
    report.show(outcome, console)
    console.print(f"{document}\n{picture}", highlight=False, soft_wrap=True)
    raise SystemExit(0 if outcome.passed else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipelines.parity", description="The zero-skew proof, on servers of its own.")
    parser.add_argument("--events", type=int, default=1_000_000, help="how many (default 1000000; at least 1000)")
    parser.add_argument("--seed", type=int, help="same seed, same events and faults (default: the settings')")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="python", help="what computes the windows")
    return parser


if __name__ == "__main__":
    main()
