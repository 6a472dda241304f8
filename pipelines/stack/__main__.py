"""What the Makefile calls: `python -m pipelines.stack demo`, `status`, `urls`, `logs`, `down`, `reset`, `doctor` ..."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.prompt import Confirm

from adapters.errors import MinimartError, Misconfigured
from pipelines.stack import parts, show
from pipelines.stack.doctor import examine, table
from pipelines.stack.env_example import render
from pipelines.stack.preflight import aside_of, check_ports_asked
from pipelines.stack.show import console
from pipelines.stack.supervisor import Supervisor
from settings import Settings, load_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Json = Annotated[bool, typer.Option("--json", help="for machines")]
PartName = Annotated[str, typer.Argument(help="name of a part, as `make status` shows it")]


@app.command()
def demo() -> None:
    """Everything from nothing to a running platform; a second run is quick."""
    from pipelines.stack.demo import demo as run  # the other commands do without its imports

    raise typer.Exit(0 if run(load_settings()) else 1)


@app.command()
def status(as_json: Json = False) -> None:
    """State of every part; exit 1 if one is unhealthy."""
    settings = load_settings()
    check_ports_asked(settings)
    found = show.rows(settings)
    if as_json:
        print(show.as_json(found))
    else:
        console.print(show.table(found, title="Minimart"))
        console.print(show.total(found))
    raise typer.Exit(1 if any(row.healthy is False for row in found) else 0)


@app.command()
def urls(as_json: Json = False) -> None:
    """Where every part is."""
    settings = load_settings()
    check_ports_asked(settings)
    addresses = {part.name: part.address(settings) for part in parts.native(settings)}
    if as_json:
        print(json.dumps(addresses, indent=1))
        return
    for part in parts.native(settings):
        print(f"{part.name:16} {addresses[part.name]:40} {part.what}")


@app.command()
def logs(part: Annotated[str, typer.Argument()] = "", lines: int = 200, follow: bool = False) -> None:
    """The end of one part's log."""
    supervisor = Supervisor(load_settings().home)
    path = supervisor.log(part)
    if not part or not path.exists():
        known = ", ".join(sorted(file.stem for file in supervisor.logs.glob("*.log"))) or "none before make demo"
        raise Misconfigured(f"S={part or '(empty)'} has no log; there are: {known}")
    with path.open(errors="replace") as source:
        sys.stdout.writelines(source.readlines()[-lines:])
        while follow:
            if line := source.readline():
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                time.sleep(0.2)


@app.command()
def down() -> None:
    """Stop what `make demo` started, and nothing else."""
    home = load_settings().home
    supervisor = Supervisor(home)
    running = [process.name for process in supervisor.processes().values() if process.pid]
    alive = supervisor.alive
    with console.status(f"stopping {', '.join(running)}"):
        left = supervisor.shutdown()
    if running or alive:
        console.print(f"stopped {len(running)} parts; the data stays in {home}")
    else:
        console.print(f"ended {left} processes of a platform that was killed" if left else "nothing of ours runs")


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Stop everything and drop the data."""
    home = load_settings().home
    there = [folder for folder in (home, aside_of(home)) if folder.exists()]
    if not there:
        console.print(f"{home} is empty already")
        return
    if home.exists():
        _check_home(home)
    names = " and ".join(map(str, there))
    if not yes and not (sys.stdin.isatty() and Confirm.ask(f"drop everything in {names}?", default=False)):
        raise Misconfigured("nothing was dropped: answer y, or run make reset YES=1")
    Supervisor(home).shutdown()
    for folder in there:
        shutil.rmtree(folder)
    console.print(f"dropped {names}")


@app.command()
def doctor() -> None:
    """What this machine has and misses; exit 1 if something needed is missing."""
    findings = examine(load_settings())
    console.print(table(findings))
    raise typer.Exit(1 if any(one.ok is False for one in findings) else 0)


@app.command()
def kill(part: PartName, comes_back: bool = False) -> None:
    """kill -9 one part; it stays down until `start`, or is restarted at once with --comes-back."""
    supervisor = _supervising(part)
    console.print(f"killed {part}, pid {supervisor.kill_part(part, stay_down=not comes_back)}")


@app.command()
def stop(part: PartName) -> None:
    """End one part in order."""
    _supervising(part).stop_part(part)


@app.command()
def start(part: PartName) -> None:
    """Start one part that was killed or stopped."""
    _supervising(part).start_part(part)


@app.command()
def picture() -> None:
    """The architecture as Mermaid text."""
    print(parts.mermaid(), end="")


@app.command()
def env_example() -> None:
    """The text of .env.example, from settings.py."""
    print(render(), end="")


def _supervising(part: str) -> Supervisor:
    settings: Settings = load_settings()
    supervisor = Supervisor(settings.home)
    known = supervisor.processes()
    if not known:
        raise Misconfigured("the platform does not run; start it with make demo")
    if part not in known:
        raise Misconfigured(f"{part!r} is not a part that runs here; there are: {', '.join(known)}")
    return supervisor


def _check_home(home: Path) -> None:
    """Never remove a folder that we did not make."""
    if not (home / "VERSION").exists() and not (home / "run").exists() and any(home.iterdir()):
        raise Misconfigured(f"{home} does not look like ours (no VERSION file): remove it yourself if it is")


def main() -> None:
    """Run the command; a known error is one line and an exit code, never a traceback."""
    try:
        app()
    except MinimartError as error:
        print(f"minimart: {error.detail}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, Misconfigured) else 1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
