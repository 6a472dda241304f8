"""What all our web pages share: templates, headers, refusal of foreign forms, style sheet, htmx. No page of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import StreamingResponse
from starlette.staticfiles import StaticFiles

STATIC: Final = Path(__file__).parent / "static"
HTMX: Final = json.dumps(
    {
        "includeIndicatorStyles": False,
        "allowEval": False,
        "allowScriptTags": False,
        "historyCacheSize": 0,
        "responseHandling": [{"code": "204", "swap": False}, {"code": "[2345]..", "swap": True}],
    }
)


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


def message(event: str, text: str) -> str:
    """One server-sent event."""
    return f"event: {event}\n" + "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"


def environment(templates: Path, **names: Any) -> Environment:
    """The templates of one service: everything escaped, a missing name is an error; `names` are known in all."""
    found = Environment(
        loader=FileSystemLoader(templates),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(htmx_config=HTMX, **names)
    return found


def mount(app: FastAPI, own: Path) -> None:
    """Serve the shared files under /shared and the service's own ones under /static."""
    app.mount("/shared", StaticFiles(directory=STATIC), name="shared")
    app.mount("/static", StaticFiles(directory=own), name="static")
