"""`python -m pipelines.drills drift|sabotage|incident|alerts`: exit 0 for PASS, 1 for FAIL, 2 where it cannot run."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from types import FrameType

from rich.console import Console

from adapters.errors import MinimartError, Misconfigured
from pipelines.drills import alarms, drift, incident, sabotage
from settings import Settings, load_settings


def main() -> None:
    chosen = _parser().parse_args()
    signal.signal(signal.SIGTERM, _as_interrupt)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        if chosen.settings:
            print(json.dumps(needed(chosen)))
            return
        passed = run(load_settings(), console, chosen)
    except MinimartError as error:
        console.print(f"[red]the drill cannot go on[/]: {error.detail}", highlight=False)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        console.print("[yellow]interrupted; everything was put back[/]")
        raise SystemExit(130) from None
    raise SystemExit(0 if passed else 1)


def run(settings: Settings, console: Console, chosen: argparse.Namespace) -> bool:
    """The chosen drill; whether it passed."""
    if chosen.drill == "drift":
        return drift.drill(settings, console, scenario=chosen.scenario, share=chosen.share, short=chosen.short,
                           kill=chosen.kill, kill_in=chosen.kill_in)  # fmt: skip
    if chosen.drill == "sabotage":
        return sabotage.drill(settings, console, short=chosen.short, kill=chosen.kill)
    if chosen.drill == "alerts":
        return alarms.drill(settings, console, only=chosen.alert)
    return incident.drill(settings, console, only=chosen.case, short=chosen.short, kill=chosen.kill)


def needed(chosen: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Part -> the settings that it must run with while this drill goes on, where the drill cannot run it itself.

    Raises Misconfigured where the drill cannot do without running parts itself.
    """
    if chosen.drill == "alerts":
        raise Misconfigured("this drill ends and freezes processes: run it on a platform that runs natively, make demo")
    if chosen.drill == "drift":
        pace, bypass = drift.pace_of(short=chosen.short), False
    elif chosen.drill == "sabotage":
        pace, bypass = sabotage.pace_of(short=chosen.short), True
    else:
        pace = incident.pace_of(short=chosen.short)
        bypass = incident.deploys(incident.cases_of(chosen.case, short=chosen.short))
    return pace.parts(bypass=bypass)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pipelines.drills", description="Drills on the running platform.")
    drills = parser.add_subparsers(dest="drill", required=True)
    for name, what in (
        ("drift", "the marketplace changes, the platform heals itself"),
        ("sabotage", "six bad challengers, none may do harm"),
        ("incident", "something breaks, triage finds out what"),
    ):
        one = drills.add_parser(name, help=what)
        one.add_argument("--short", action="store_true", help="the form for CI: shorter steps, fewer cases")
        one.add_argument("--settings", action="store_true", help="only print what the parts must be set to, as JSON")
        one.add_argument("--kill", default="", metavar="PART", help="kill -9 this part in the middle; it comes back")
    one = drills.choices["drift"]
    one.add_argument("--scenario", choices=tuple(drift.SHARES), default="taste_shift")
    one.add_argument("--share", type=float, help="how much of it, 0 to 1")
    one.add_argument("--kill-in", choices=("retraining", "shadow", "canary_5", "canary_25", "canary_50"),
                     default="retraining", help="in which state the part is killed")  # fmt: skip
    one = drills.add_parser("alerts", help="every alert rule is made to fire")
    one.add_argument("--alert", default="", metavar="NAME", help="only what raises this alert")
    one.add_argument("--settings", action="store_true", help=argparse.SUPPRESS)
    drills.choices["incident"].add_argument("--case", choices=("", *(c.name for c in incident.CASES)), default="")
    return parser


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
