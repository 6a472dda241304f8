"""The console's addresses: decode, ask, draw. A request from htmx gets a fragment, any other a whole page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from jinja2 import Environment
from starlette.responses import HTMLResponse, Response

from adapters.errors import NotFound
from adapters.incidents import ID_PATTERN
from adapters.pages import EventStream, message
from adapters.web import draining
from feature_repo.contracts.contract import Contract
from feature_repo.events import is_id
from services.console import actions, contracts, features
from services.console.board import Board
from services.console.neighbours import LONG_SECONDS, Neighbours
from services.console.registry import Registry

PANELS: Final = ("flow", "rollout", "versions", "latency", "drift", "alerts", "scenario")
MOST_STREAMS: Final = 50
LOOK_S: Final = 2.0
BEAT: Final = 7
LINE: Final = r"^[^\x00-\x1f\x7f]+$"
ActionName = Annotated[str, Path(pattern=r"^[a-z_-]{1,40}$", description="an action")]
PanelName = Annotated[str, Path(pattern=r"^[a-z]{1,20}$", description="a panel")]
IncidentId = Annotated[str, Path(pattern=ID_PATTERN, max_length=100, description="id of an incident")]
Text = Annotated[str, Form(min_length=1, max_length=300, pattern=LINE)]
router = APIRouter(default_response_class=HTMLResponse)


@dataclass(frozen=True)
class Console:
    """What the addresses need. `links(host)`: (name, address) of other pages, for a browser that came to `host`."""

    board: Board
    neighbours: Neighbours
    templates: Environment
    links: Callable[[str], list[tuple[str, str]]]
    newest: Callable[[], list[dict[str, Any]]]
    registry: Registry
    promised: Mapping[str, Contract]
    clock: Callable[[], int]
    streams: set[object] = field(default_factory=set)

    def panel(self, name: str, values: dict[str, Any]) -> str:
        """One panel as HTML."""
        return self.templates.get_template(f"_{name}.html").render(**values)


def the_console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


Consoles = Annotated[Console, Depends(the_console)]


def draw(request: Request, fragment: str, page: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A fragment for htmx, else the page around it."""
    console = the_console(request)
    name = fragment if "hx-request" in request.headers else page
    around = {"fragment": fragment, "links": console.links(request.url.hostname or "127.0.0.1")}
    return HTMLResponse(console.templates.get_template(name).render(**around, **values), status)


@router.get("/", summary="The whole platform on one page")
async def home(request: Request, console: Consoles) -> Response:
    panels = await console.board.panels()
    drawn = {name: console.panel(name, panels[name]) for name in PANELS}
    return draw(request, "console.html", "console.html", drawn=drawn)


@router.get("/panels/{name}", summary="One panel")
async def panel(console: Consoles, name: PanelName) -> Response:
    if name not in PANELS:
        raise NotFound(f"no panel {name!r}; there are {', '.join(PANELS)}", field="name")
    return HTMLResponse(console.panel(name, (await console.board.panels())[name]))


@router.get("/ask/{name}", summary="What an action will cause, and the form that confirms it")
async def ask(request: Request, name: ActionName) -> Response:
    action = _known(name)
    actor = request.cookies.get("actor", "")
    return draw(request, "_ask.html", "page.html", title=action.title, action=action, actor=actor, line=LINE)


@router.post("/act/{name}", summary="Do it: with who asks for it, and why")
async def act(request: Request, console: Consoles, name: ActionName, actor: Text, reason: Text) -> Response:
    action = _known(name)
    answer = await actions.do(console.neighbours, action, reason, actor)
    console.board.stale()
    drawn = draw(request, "_acted.html", "page.html", title=action.title, action=action, answer=answer)
    drawn.set_cookie("actor", actor.encode("ascii", "ignore").decode(), httponly=True, samesite="strict", path="/")
    return drawn


@router.get("/decisions", summary="Why one answer was what it was")
async def decisions(
    request: Request, console: Consoles,
    id: Annotated[str, Query(max_length=64, description="request id of the answer")] = "",
) -> Response:  # fmt: skip
    record, trouble = None, ""
    if id:
        answer = await console.neighbours.get("recommender", f"/v1/decisions/{_id(id)}", seconds=LONG_SECONDS)
        record, trouble = answer.value, answer.away
    newest = await asyncio.to_thread(console.newest)
    return draw(
        request, "_decision.html", "decisions.html", title="Decisions", id=id, record=record, trouble=trouble,
        why=(record or {}).get("why"), newest=newest,
    )  # fmt: skip


@router.get("/features", summary="Every feature: owner, age, lineage, distribution")
async def registry(
    request: Request, console: Consoles,
    q: Annotated[str, Query(max_length=60, description="part of a name or meaning")] = "",
) -> Response:  # fmt: skip
    values = features.page(await console.registry.features(), console.clock(), q.strip())
    return draw(request, "features.html", "features.html", **values)


@router.get("/contracts", summary="What each topic and table promises, and whether it keeps it")
async def promises(request: Request, console: Consoles) -> Response:
    values = contracts.page(console.promised, await console.registry.contracts(), console.clock())
    return draw(request, "contracts.html", "contracts.html", **values)


@router.get("/incidents/{incident_id}", summary="An incident's report")
async def incident(request: Request, console: Consoles, incident_id: IncidentId) -> Response:
    answer = await console.neighbours.get("monitor", f"/v1/incidents/{incident_id}/report")
    if answer.status == 404:
        raise NotFound(answer.away, field="incident_id")
    return draw(request, "_incident.html", "page.html", title=incident_id, report=answer.value, trouble=answer.away)


@router.get("/stream", response_class=EventStream, summary="Server-sent events: each panel, whenever it changes")
async def stream(request: Request, console: Consoles) -> Response:
    if len(console.streams) >= MOST_STREAMS:
        return Response(status_code=204)
    me = object()

    async def messages() -> AsyncIterator[str]:
        console.streams.add(me)
        shown: dict[str, str] = {}
        quiet = 0
        try:
            yield ": hello\n\n"
            while not draining(request):
                panels = await console.board.panels()
                drawn = {name: console.panel(name, panels[name]) for name in PANELS}
                changed = [name for name in PANELS if shown.get(name) != drawn[name]]
                for name in changed:
                    yield message(name, drawn[name])
                quiet = 0 if changed else quiet + 1
                if quiet >= BEAT:
                    yield ": beat\n\n"
                    quiet = 0
                shown = drawn
                await asyncio.sleep(LOOK_S)
        finally:
            console.streams.discard(me)

    return EventStream(messages(), headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})


def _known(name: str) -> actions.Action:
    action = actions.action_of(name)
    if action is None:
        raise NotFound(f"no action {name!r}", field="name")
    return action


def _id(text: str) -> str:
    """The id as it may stand in an address."""
    if not is_id(text):
        raise NotFound(f"{text!r} is no id of a decision", field="id")
    return text
