"""Does the data keep its contracts? Checks the newest rows of every topic and table in the lake, and says what is not.

    python -m pipelines.check_contracts [--window 1d] [--contract shop.clicks]

Exit status: 0 kept or too little data to say, 1 worth a look, 2 a contract is broken, 3 the lake cannot be read.
The report goes to `home/contracts`, rows that break a rule to `home/quarantine/contracts.csv` with their reasons, and
the levels to Prometheus. Changes nothing in the lake. The contracts are in feature_repo/contracts; docs/contracts.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from adapters.errors import MinimartError, Misconfigured
from feature_repo.contracts.contract import Contract
from feature_repo.contracts.files import contracts
from feature_repo.contracts.findings import Level
from feature_repo.events import LAKE_TOPICS
from pipelines.contract_checks import Checked, Lake, check
from pipelines.contract_report import gauges, quarantine, report, show
from pipelines.durations import seconds
from pipelines.history_lake import read_meta
from settings import Settings, load_settings

EXIT: Final = {Level.INSUFFICIENT_DATA: 0, Level.KEPT: 0, Level.WARN: 1, Level.BROKEN: 2}
UNREADABLE: Final = 3
KEPT: Final = 200


def checkable() -> dict[str, Contract]:
    """The contracts whose rows lie in the lake or in a table; other topics are held to theirs by what writes them."""
    return {name: c for name, c in contracts().items() if c.kind == "table" or name in LAKE_TOPICS}


def check_all(
    settings: Settings, names: Sequence[str], window_s: float, now_ms: int, until_ms: int | None = None
) -> Iterator[Checked]:
    """Every contract that is asked for, one after another. Raises Misconfigured where there is no lake."""
    if not settings.lake.is_dir():
        raise Misconfigured(f"there is no lake at {settings.lake}; make one with `make demo` or import your data first")
    missing = frozenset((read_meta(settings.lake) or {}).get("missing", {}))
    lake = Lake(settings.lake, settings.home, missing)
    for name in names:
        yield check(checkable()[name], lake, int(window_s * 1000), now_ms, until_ms)


def keep(document: dict[str, Any], checked: Sequence[Checked], settings: Settings, out: Path | None = None) -> int:
    """Write report, gauges and quarantine; returns how many rows lie in quarantine."""
    folder, text = settings.home / "contracts", json.dumps(document, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / f"{document['id']}.json", folder / "latest.json", *([out] if out else [])):
        scratch = path.with_suffix(".part")
        scratch.write_text(text)
        scratch.replace(path)
    for old in sorted(folder.glob("contracts-*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
    gauges(document, settings.metrics / "contracts.prom")
    return quarantine(checked, settings.home / "quarantine" / "contracts.csv")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="check_contracts", description=__doc__.split("\n")[0])
    parser.add_argument("--window", type=seconds, default=86_400, metavar="1d", help="how far back rows are read")
    parser.add_argument("--contract", action="append", choices=sorted(checkable()), help="only this; repeatable")
    parser.add_argument("--until-ms", type=int, default=None, help="the window ends here, not with the newest row")
    parser.add_argument("--now-ms", type=int, default=None, help="judge freshness and volume as of this moment")
    parser.add_argument("--quiet", action="store_true", help="print the verdict's line only")
    parser.add_argument("--out", type=Path, default=None, help="write the report here as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """One check; the exit status says what it found."""
    given = parse(arguments)
    settings, began = load_settings(), time.monotonic()
    now_ms = int(time.time() * 1000) if given.now_ms is None else given.now_ms
    console = Console(width=160 if not sys.stdout.isatty() else None)
    checked = []
    try:
        with console.status("reading the lake") as status:
            for one in check_all(settings, given.contract or list(checkable()), given.window, now_ms, given.until_ms):
                checked.append(one)
                status.update(f"{len(checked)} of {len(given.contract or checkable())}: {one.contract.name}")
    except (MinimartError, OSError) as error:
        print(f"check_contracts: {getattr(error, 'detail', error)}", file=sys.stderr)
        return UNREADABLE
    document = report(checked, at_ms=now_ms, window_s=given.window, seconds=time.monotonic() - began)
    bad = keep(document, checked, settings, given.out)
    if given.quiet:
        print(f"{document['verdict']} {document['id']}")
    else:
        show(document, console)
        if bad:
            console.print(f"{bad:,} rows with their reasons: {settings.home / 'quarantine' / 'contracts.csv'}")
    return EXIT[Level[document["verdict"].upper()]]


if __name__ == "__main__":
    raise SystemExit(main())
