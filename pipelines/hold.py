"""A person's word to the controller of rollouts: make hold, resume, rollback, retrain, rollout."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from settings import Settings, load_settings

WISHES = ("hold", "resume", "promote", "rollback", "retrain", "check")


def wish(settings: Settings, what: str, reason: str, model: str) -> dict[str, Any]:
    """Ask the controller. Raises RuntimeError with its reason when it does not do it."""
    body = {"reason": reason, "actor": getpass.getuser()} | ({"model": model} if what in ("hold", "resume") else {})
    return _asked(settings, "POST", f"/v1/rollout/{what}", body)


def show(settings: Settings, console: Console) -> None:
    """Print state, shares and the newest transitions."""
    found = _asked(settings, "GET", "/v1/rollout", None)
    shares = ", ".join(f"{arm} {share:g} %" for arm, share in found["shares"].items())
    console.print(f"[bold]{found['state']}[/bold] ({shares}): {found['reason']}")
    if found["paused"]:
        console.print(f"paused: {found['paused']}")
    for model, hold in found["holds"].items():
        console.print(f"held: {model} by {hold['actor']}: {hold['reason']}")
    table = Table("from", "to", "by", "why")
    for line in found["history"][:12]:
        table.add_row(line["from"], line["to"], f"{line['trigger']} ({line['actor']})", line["reason"])
    console.print(table)


def _asked(settings: Settings, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    address = settings.url("controller")
    try:
        answer = httpx.request(method, address + path, json=body, timeout=15, trust_env=False)
    except httpx.HTTPError as error:
        raise RuntimeError(f"no controller at {address} ({type(error).__name__}): make demo starts it") from None
    found: dict[str, Any] = answer.json()
    if answer.status_code >= 400:
        raise RuntimeError(str(found.get("detail", answer.text)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("show", *WISHES))
    parser.add_argument("--model", default="recommender", help="ranker, preranker, two-tower, ...; recommender = all")
    parser.add_argument("--reason", default="asked for on the command line")
    chosen = parser.parse_args()
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    try:
        if chosen.what == "show":
            show(settings, console)
        else:
            found = wish(settings, chosen.what, chosen.reason, chosen.model or "recommender")
            console.print(f"{chosen.what}: {found['state']}; {found['detail']}")
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
