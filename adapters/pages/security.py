"""Headers that keep pages to themselves, and a refusal of forms that other sites send."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.problems import problem

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
CACHED: Final = ("/static/", "/shared/", "/pictures/")


class OwnPages:
    """Sends HEADERS with every answer and refuses what changes something and comes from elsewhere.

    With `hosts` it answers under these names alone (a name of someone else that points at this address is refused),
    and whatever changes something must come from a page of its own: with htmx's header, which no other site can send.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused:
            request_id = str(scope.get("state", {}).get("request_id", ""))
            await problem(request_id, 403, refused, title="Forbidden")(scope, receive, send)
            return

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith(CACHED):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, sender)

    def _refusal(self, scope: Scope) -> str:
        """Why the request is refused; empty if it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self.hosts and name not in self.hosts:
            return f"This is not {name!r}; allowed names: {', '.join(sorted(self.hosts))}."
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return ""
        origin = headers.get("origin", "")
        foreign = origin not in ("", "null") and urlsplit(origin).netloc != host
        if headers.get("sec-fetch-site") == "cross-site" or foreign:
            return "This form came from another site; open the page itself and try again."
        if self.hosts and (origin == "null" or "hx-request" not in headers):
            return "What changes the platform must be sent by the page itself; open it and use its buttons."
        return ""
