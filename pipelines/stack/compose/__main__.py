"""What the Makefile calls with STACK=compose: `python3 -m pipelines.stack.compose status`, `logs`, `python` ..."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

from adapters.errors import MinimartError, Misconfigured, Unavailable
from pipelines.stack.compose import doctor, engine, show, tools, up
from pipelines.stack.compose.engine import Container, compose


def demo(_: argparse.Namespace) -> int:
    """Build, start and wait until the first recommendation can be answered."""
    return up.demo()


def examine(_: argparse.Namespace) -> int:
    """What this machine has and misses; exit 1 if something needed is missing."""
    return doctor.doctor()


def python(asked: argparse.Namespace) -> int:
    """Run a program of ours inside the composed network."""
    return tools.python(asked.arguments)


def status(asked: argparse.Namespace) -> int:
    """State, health and memory of every container; exit 1 if one is unhealthy."""
    shown = _rows()
    print(show.as_json(shown) if asked.json else f"Minimart (compose)\n{show.table(shown)}\n{show.total(shown)}")
    return 0 if shown and all(row.healthy for row in shown) else 1


def urls(asked: argparse.Namespace) -> int:
    """Where every part is, as this machine reaches it."""
    found = {one.service: show.address(one) for one in engine.containers() if one.published and one.state == "running"}
    if asked.json:
        print(json.dumps(found, indent=1))
    elif not found:
        raise Unavailable(engine.NOT_UP)
    else:
        print("\n".join(f"{name:16} {where}" for name, where in found.items()))
    return 0


def logs(asked: argparse.Namespace) -> int:
    """The end of one part's log."""
    chosen = _chosen(asked.part)
    follow = ["--follow"] if asked.follow else []
    return _run(compose("logs", "--no-log-prefix", "--tail", str(asked.lines), *follow, chosen[0].service))


def down(_: argparse.Namespace) -> int:
    """Stop and remove the containers; the data stays in its volumes."""
    engine.check()
    return _run(compose("--profile", "*", "down", "--remove-orphans"))


def reset(asked: argparse.Namespace) -> int:
    """Stop everything and drop the volumes."""
    engine.check()
    volumes = engine.ask(compose("config", "--volumes")).split()
    if not asked.yes:
        answer = input(f"drop the volumes {', '.join(volumes)}? [y/n] ") if sys.stdin.isatty() else "n"
        if answer.strip().lower() not in ("y", "yes"):
            raise Misconfigured("nothing was dropped: answer y, or run make reset STACK=compose YES=1")
    return _run(compose("--profile", "*", "down", "--volumes", "--remove-orphans"))


def kill(asked: argparse.Namespace) -> int:
    """kill -9 a part; it stays down until `start`."""
    chosen = [one for one in _chosen(asked.part) if one.state == "running"]
    if not chosen:
        raise Misconfigured(f"{asked.part} does not run: make start S={asked.part} STACK=compose")
    engine.ask(["docker", "kill", *(one.id for one in chosen)])
    print(f"killed {', '.join(one.name for one in chosen)}")
    return 0


def stop(asked: argparse.Namespace) -> int:
    """End a part in order; it stays down until `start`."""
    engine.ask(["docker", "stop", *(one.id for one in _chosen(asked.part))], timeout_s=120)
    return 0


def start(asked: argparse.Namespace) -> int:
    """Start a part that was killed or stopped."""
    found = [one.id for one in engine.containers() if asked.part in _names(one)]
    if found:
        engine.ask(["docker", "start", *found])
        return 0
    if asked.part not in (known := engine.model()):
        raise Misconfigured(f"{asked.part!r} is not a service; there are: {', '.join(sorted(known))}")
    return _run(compose("up", "--detach", "--no-deps", asked.part))


def _chosen(part: str) -> list[Container]:
    """The containers of a part, or of one replica as `make status` names it."""
    found = engine.containers()
    chosen = [one for one in found if part in _names(one)]
    if not found:
        raise Misconfigured(engine.NOT_UP)
    if not chosen:
        known = ", ".join(sorted({one.service for one in found}))
        raise Misconfigured(f"S={part or '(empty)'} is not a part that runs here; there are: {known}")
    return chosen


def _names(one: Container) -> tuple[str, ...]:
    return (one.service, one.name, f"{one.service}-{one.number}")


def _rows() -> list[show.Row]:
    engine.check()
    found = engine.containers()
    return show.rows(engine.model(), found, engine.memory_mib([one.id for one in found if one.state == "running"]))


def _run(command: Sequence[str]) -> int:
    """A command that speaks for itself."""
    return subprocess.run(list(command), cwd=str(engine.ROOT), check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m pipelines.stack.compose", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, what: Callable[[argparse.Namespace], int], *, part: bool = False) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=(what.__doc__ or "").splitlines()[0])
        one.set_defaults(run=what)
        if part:
            one.add_argument("part", nargs="?", default="", help="a service, or a replica such as recommender-2")
        return one

    verb("demo", demo)
    verb("status", status).add_argument("--json", action="store_true")
    verb("urls", urls).add_argument("--json", action="store_true")
    log = verb("logs", logs, part=True)
    log.add_argument("--lines", type=int, default=200)
    log.add_argument("--follow", action="store_true")
    verb("down", down)
    verb("reset", reset).add_argument("--yes", action="store_true")
    verb("doctor", examine)
    for name, what in (("kill", kill), ("stop", stop), ("start", start)):
        verb(name, what, part=True)
    verb("python", python).add_argument("arguments", nargs="*", help="-m module and its arguments")
    return parser


def main() -> None:
    """Run the verb; a known error is one line and an exit code, never a traceback."""
    if sys.argv[1:2] == ["python"]:  # what follows is not ours to read
        asked = argparse.Namespace(run=python, arguments=sys.argv[2:])
    else:
        asked = _parser().parse_args()
    try:
        raise SystemExit(asked.run(asked))
    except MinimartError as error:
        print(f"minimart: {error.detail}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, Misconfigured) else 1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
