"""`make demo` as a table of contents: check, start the infrastructure, data, features, models, services, one answer.

Interrupted at any point it stops what it started; run again it goes on, because every step leaves a stamp.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import httpx
from rich.table import Table

from adapters import event_lake, pointers, provenance
from adapters.code_digest import code_digest
from adapters.errors import MinimartError, Unavailable
from adapters.kafka import ensure_topics
from pipelines.history_lake import read_meta
from pipelines.stack import commands, kafka_broker, preflight, probes, show
from pipelines.stack.launch import CannotRun, Launch
from pipelines.stack.parts import Part, native
from pipelines.stack.show import console
from pipelines.stack.steps import Runner, Step
from pipelines.stack.supervisor import Supervisor
from settings import Settings

READY_S = 120.0


def demo(settings: Settings) -> bool:
    """Bring the whole platform up and leave it running; gives whether every part is ready and a feed was answered."""
    identity = preflight.identity_of(settings)
    preflight.check_state(settings.home)
    preflight.check_disk(settings.home, settings.disk_needed_gib)
    preflight.check_memory(settings.memory_needed_gib)
    supervisor = Supervisor(settings.home)
    moved = preflight.take_home(settings, identity, running=supervisor.alive)
    runner = Runner(settings.home, console)
    if moved:
        runner.say(f"[yellow]{moved}[/]")
    with _stopped_on_interrupt(supervisor, began_running=supervisor.alive):
        programs = _programs(settings, runner)
        _start_manager(supervisor, programs, settings, runner)
        _start(supervisor, ("infrastructure",), settings)
        _infrastructure(settings, runner)
        for step in steps(identity):
            runner.run(step)
        _start(supervisor, ("service",), settings)
        parts = native(settings)
        well = _wait(supervisor, tuple(part for part in parts if part.kind != "watch"), settings, runner)
        _start(supervisor, ("watch",), settings)  # last, so that no alert fires for what has not been started yet
        well = _wait(supervisor, tuple(part for part in parts if part.kind == "watch"), settings, runner) and well
        well = _answer(settings) and well
        _report(settings, runner)
    if well:
        runner.say("the platform is up; [bold]make walk[/] follows one event, [bold]make down[/] stops it")
    return well


def steps(identity: dict[str, Any]) -> tuple[Step, ...]:
    """From nothing to published models. A later key holds the earlier ones: after new data all is made again."""
    source = "pipelines.seed_history" if identity["source"] == "simulator" else "pipelines.import_data"
    data = {"identity": identity, "code": code_digest(source)}
    plan = code_digest("pipelines.apply_features")
    if identity["source"] == "simulator":
        history = Step("history", f"{identity['days']} days of shopping", source, key=data)
    else:
        history = Step("history", "your items and events", source, ("--data", identity["folder"]), key=data)
    catalogue, online = "pipelines.publish_catalogue", "pipelines.materialize"
    return (
        history,
        Step("features", "Feast registry and feature plan", "pipelines.apply_features", key=plan),
        Step("catalogue", "items to Kafka", catalogue, key=[data, code_digest(catalogue)]),
        Step("online", "history to Redis", online, key=[data, plan, code_digest(online)]),
        Step("models", "train, gate, publish", "pipelines.run_all"),
    )


def _programs(settings: Settings, runner: Runner) -> dict[str, Launch]:
    """The command of every part that this machine can run; what it cannot run is said and left out."""
    if not kafka_broker.installed():
        with console.status("downloading Kafka (45 MB)"):
            kafka_broker.install()
        runner.say("[green]kafka[/]: downloaded and checked")
    programs = {}
    for part in native(settings):
        try:
            programs[part.name] = commands.launch(part, settings)
        except CannotRun as reason:
            runner.say(f"[yellow]{part.name}[/]: going on without it: {reason.detail}")
    return programs


def _start_manager(supervisor: Supervisor, programs: dict[str, Launch], settings: Settings, runner: Runner) -> None:
    """Check the ports of what does not run yet, then start the process manager."""
    if not supervisor.alive:
        supervisor.end_orphans()
    held = {name for name, process in supervisor.processes().items() if process.pid}
    preflight.check_ports([part for part in native(settings) if part.name in programs.keys() - held], settings)
    preflight.remember_ports(settings)
    if supervisor.start(programs):
        runner.say(f"[green]processes[/]: manager started, logs under {supervisor.logs}")


def _start(supervisor: Supervisor, kinds: tuple[str, ...], settings: Settings) -> None:
    present = supervisor.processes()
    for part in native(settings):
        if part.kind in kinds and part.name in present:
            supervisor.start_part(part.name)


def _infrastructure(settings: Settings, runner: Runner) -> None:
    """Wait for what the pipelines write to, and make the topics. MLflow may take its time."""
    begun = time.monotonic()
    for part in native(settings):
        if part.name in ("kafka", "redis"):
            _wait_for(part, settings, runner, READY_S)
    runner.finished("infrastructure", "Kafka and Redis", begun)
    made = ensure_topics(settings.kafka, settings.kafka_partitions, timeout_s=60)
    if made:
        runner.say(f"[green]topics[/]: {len(made)} made, {settings.kafka_partitions} partitions each")


def _wait_for(part: Part, settings: Settings, runner: Runner, timeout_s: float) -> None:
    begun = time.monotonic()
    while not (health := probes.check(part, settings)).ready:
        if time.monotonic() - begun > timeout_s:
            late = f"{part.name} is not ready after {timeout_s:.0f} s: {health.reason}"
            raise Unavailable(f"{late}; see make logs S={part.name}")
        time.sleep(0.2)
    runner.say(f"[green]{part.name}[/]: ready")


def _wait(supervisor: Supervisor, parts: tuple[Part, ...], settings: Settings, runner: Runner) -> bool:
    """Until every part is ready; gives False, and says which are not, when that takes too long."""
    begun = time.monotonic()
    waiting = [part for part in parts if part.name in supervisor.processes()]
    deadline = time.monotonic() + READY_S
    with console.status("") as status:
        while waiting and time.monotonic() < deadline:
            status.update(f"waiting for {', '.join(part.name for part in waiting)}")
            ready = [part for part in waiting if probes.check(part, settings).ready]
            for part in ready:
                runner.say(f"[green]{part.name}[/]: ready")
            waiting = [part for part in waiting if part not in ready]
            time.sleep(0.5 if waiting else 0)
    for part in waiting:
        reason = probes.check(part, settings).reason
        runner.say(f"[red]{part.name}[/]: not ready: {reason}; see make logs S={part.name}")
    runner.finished("services", "every part ready" if not waiting else "some parts are not ready", begun)
    return not waiting


def _report(settings: Settings, runner: Runner) -> None:
    """Print the table of parts, and keep what the run took in home/bench/demo.json."""
    _say_what_is_missing(settings)
    found = show.rows(settings)
    console.print(show.table(found, title="Minimart"))
    console.print(show.total(found))
    memory = {row.name: row.memory_mib for row in found if row.pid}
    record = {
        "steps": runner.done, "seconds_total": round(time.monotonic() - runner.started, 1),
        "memory_mib": memory, "memory_mib_total": sum(memory.values()),
        **provenance.stamp(),
    }  # fmt: skip
    path = settings.home / "bench" / "demo.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1))


def _say_what_is_missing(settings: Settings) -> None:
    """What each column that imported data lacks costs, and how many of its rows lie in quarantine, why."""
    meta = read_meta(settings.lake) or {}
    if meta.get("source") != "import":
        return
    out = Table(title=f"{settings.data}: {meta['rows']['taken']:,} rows taken", title_justify="left", box=None)
    out.add_column("not there")
    out.add_column("what that costs")
    for column, cost in meta["missing"].items():
        out.add_row(column, cost)
    for reason, count in meta["rows"]["quarantined"].items():
        out.add_row(f"{count:,} rows", f"in {settings.home / 'quarantine' / 'import.csv'}: {reason}")
    console.print(out)


def _answer(settings: Settings) -> bool:
    """Ask for one feed and print it with its stage timings."""
    user = _some_user(settings)
    try:
        answer = httpx.post(
            f"{settings.url('recommender')}/v1/recommendations", json={"user_id": user, "k": 10}, timeout=10
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        console.print(f"[red]the recommender did not answer: {error}[/]")
        return False
    body = answer.json()
    titles = _titles(settings)
    out = Table(title=f"A feed for shopper {user} (request {body['request_id']})", title_justify="left", box=None)
    for name in ("#", "item", "what", "score", "found by"):
        out.add_column(name, justify="right" if name in ("#", "score") else "left")
    for item in body["items"]:
        name = titles.get(item["item_id"], "")
        out.add_row(str(item["position"]), item["item_id"], name, f"{item['score']:.3f}", ", ".join(item["sources"]))
    console.print(out)
    timings = "  ".join(f"{stage} {ms:.1f} ms" for stage, ms in body["timings_ms"].items())
    console.print(f"stages: {timings}")
    console.print(f"models: {body['model_versions']}  degraded: {body['degraded'] or 'no'}")
    return len(body["items"]) == 10


def _some_user(settings: Settings) -> str:
    """A shopper that the models know."""
    with contextlib.suppress(MinimartError, OSError, KeyError, IndexError):
        return pointers.load_current(settings.published)["two-tower"].path("users.txt").read_text().split("\n", 1)[0]
    return "visitor"


def _titles(settings: Settings) -> dict[str, str]:
    items = event_lake.scan(settings.lake, "shop.items", columns=["item_id", "title"])
    return dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))


@contextlib.contextmanager
def _stopped_on_interrupt(supervisor: Supervisor, *, began_running: bool) -> Iterator[None]:
    """On Ctrl-C, a termination signal or an error stop the platform, unless it ran before this command."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        if not began_running:
            console.print("[yellow]stopping what was started; run make demo again to go on from here[/]")
            supervisor.shutdown()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)
