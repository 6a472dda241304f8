"""Make recorded decisions again and say why: `make why ID=request_id`, or `make why SAMPLE=100` for a random sample.

Reads the event log and the archived models; needs no running service (a decision of the last seconds, which is not in
the log yet, is asked of the recommender). Exit 1 if anything made again differs, 2 if the decision is not known.
"""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import httpx
import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from adapters.event_lake import find_decision, scan
from adapters.replay import Outcome, Replay
from adapters.why import Explainer
from feature_repo.events import DECISIONS, ItemListed
from settings import Settings, load_settings

TOLD: Final = 3  # products explained in words
_COLOURS: Final[Mapping[str, str]] = {"same": "green", "close": "cyan", "different": "red", "cannot": "yellow"}
console = Console(highlight=False, width=None if Console().is_terminal else 180)


def main(
    request_id: Annotated[str, typer.Argument(help="the decision; the newest one if none is named")] = "",
    item: Annotated[str, typer.Option(help="a product to explain, shown or not")] = "",
    sample: Annotated[int, typer.Option(help="make this many random decisions of the log again")] = 0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say why."""
    settings = load_settings()
    if sample:
        raise typer.Exit(_sample(settings, sample, as_json))
    record = _record(settings, request_id)
    if record is None:
        what = f"decision {request_id!r}" if request_id else "decision"
        console.print(f"no {what} in {settings.lake / DECISIONS}, nor does the recommender know one")
        raise typer.Exit(2)
    titles = _titles(settings)
    why = Explainer(settings.published).explain(record, lambda i: titles.get(i, i), (item,) if item else ())
    if as_json:
        print(json.dumps({"request_id": record["request_id"], "why": why}))
    else:
        _tell(record, why, item)
    raise typer.Exit(1 if why["outcome"] == "different" else 0)


def _record(settings: Settings, request_id: str) -> dict[str, Any] | None:
    if not request_id:
        found = scan(settings.lake, DECISIONS, ["request_id"])["request_id"].to_pylist()
        request_id = max(found, default="")
        return find_decision(settings.lake, request_id) if request_id else None
    return find_decision(settings.lake, request_id) or _asked(settings, request_id)


def _asked(settings: Settings, request_id: str) -> dict[str, Any] | None:
    """From the recommender's memory; None where it does not run or does not know it."""
    try:
        answer = httpx.get(f"{settings.url('recommender')}/v1/decisions/{request_id}", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return None
    return dict(answer.json()) if answer.status_code == 200 else None


def _titles(settings: Settings) -> dict[str, str]:
    table = scan(settings.lake, ItemListed.topic, ["item_id", "title"])
    return dict(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True))


def _sample(settings: Settings, count: int, as_json: bool) -> int:
    """Make `count` random decisions again; 1 if one differs, 2 if there is none."""
    started, tally, versions = time.monotonic(), collections.Counter[str](), collections.Counter[str]()
    per_check: dict[str, collections.Counter[str]] = {}
    explainer, bad = Explainer(settings.published), list[tuple[str, Replay]]()
    for record in _drawn(settings, count):
        again = explainer.check(record)
        tally[again.outcome] += 1
        versions[str(record["model_versions"].get("ranker"))] += 1
        for check in again.checks:
            per_check.setdefault(check.name, collections.Counter())[check.outcome] += 1
        if again.outcome != "same":
            bad.append((record["request_id"], again))
    made = sum(tally.values())
    if as_json:
        print(json.dumps({"decisions": made, "outcomes": tally, "checks": per_check, "ranker_versions": versions}))
    else:
        _tell_sample(made, per_check, versions, bad, time.monotonic() - started)
    return 2 if made == 0 else 1 if tally["different"] else 0


def _drawn(settings: Settings, count: int) -> Iterator[dict[str, Any]]:
    """Random records of the log, by the settings' seed; each ranker version is in it as often as in the log."""
    table = scan(settings.lake, DECISIONS, ["payload"])
    chosen = np.random.default_rng(settings.seed).permutation(len(table))[:count]
    for text in table["payload"].take(np.sort(chosen)).to_pylist():
        yield msgspec.json.decode(text, type=dict[str, Any])


def _tell_sample(
    made: int, per_check: Mapping[str, collections.Counter[str]], versions: Mapping[str, int],
    bad: list[tuple[str, Replay]], seconds: float,
) -> None:  # fmt: skip
    outcomes: tuple[Outcome, ...] = ("same", "close", "different", "cannot")
    table = Table("step", *outcomes, box=None, pad_edge=False)
    for name, found in per_check.items():
        table.add_row(name, *(_coloured(o, str(found[o])) if found[o] else "" for o in outcomes))
    served = ", ".join(f"ranker {version}: {n}" for version, n in sorted(versions.items()))
    console.print(f"{made} decisions made again in {seconds:.1f} s ({served})")
    console.print(table)
    for request_id, again in bad[:10]:
        for check in again.checks:
            if check.outcome != "same":
                outcome = _coloured(check.outcome, check.outcome)
                console.print(f"  {request_id}  {outcome}  {check.name}: {check.detail}")
    if len(bad) > 10:
        console.print(f"  and {len(bad) - 10} more")
    differ = sum(again.outcome == "different" for _, again in bad)
    console.print(f"{differ} decisions differ" if differ else "no decision differs")


def _tell(record: Mapping[str, Any], why: Mapping[str, Any], item: str) -> None:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record["now_ms"] / 1000))
    console.print(f"[bold]Decision {record['request_id']}[/]: {record['k']} products for {record['user_id']}, {at} UTC")
    versions = ", ".join(f"{m['name']} {m['version']}" for m in why["models"])
    console.print(f"{why['answered_by']} {versions}; {record['timings_ms']['total']:.1f} ms")
    if record["degraded"]:
        console.print(f"[yellow]Left out: {', '.join(record['degraded'])}[/]")
    console.print(f"\n{_coloured(why['outcome'], why['says'])}")
    checks = Table("step", "", "values", "", box=None, pad_edge=False)
    for check in why["checks"]:
        outcome = _coloured(check["outcome"], check["outcome"])
        checks.add_row(check["name"], outcome, f"{check['compared']:,}", check["detail"])
    console.print(checks)
    console.print()
    console.print(_ways(why))
    told = [i for i in why["items"] if i["item_id"] == item] if item else why["items"][:TOLD]
    for one in told:
        console.print(f"\n[bold]{one['title']}[/] ({one['item_id']})")
        for sentence in one["words"]:
            console.print(f"  {sentence}")
    for drop in why["dropped"][:5]:
        console.print(f"\n{drop['title']} ({drop['item_id']}) {drop['words']}")


def _ways(why: Mapping[str, Any]) -> Table:
    """The shown products with their places after each stage."""
    stages = [p["stage"] for p in why["items"][0]["places"]] if why["items"] else []
    table = Table("place", "product", "found by", *stages, "moved by", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for one in why["items"]:
        places = ["-" if p["place"] is None else f"{p['place']}" for p in one["places"]]
        sources = ", ".join(source["name"] for source in one["sources"])
        table.add_row(str(one["position"] or "-"), one["title"], sources, *places, ", ".join(one["moved_by"]))
    return table


def _coloured(outcome: str, text: str) -> str:
    return f"[{_COLOURS[outcome]}]{text}[/]"


if __name__ == "__main__":
    typer.run(main)
