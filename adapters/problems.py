"""RFC 9457 problem documents: every error that leaves one of our HTTP services has this one shape.

    {"type", "title", "status", "detail", "request_id", "errors": [{"field", "value", "allowed"}]}

`detail` never carries a stack trace or a vendor's message; `value` is shortened, so that no caller can make us echo.
Handlers are coroutines although they wait for nothing: others would each be handed to a thread, which costs more than
what they do, and an overloaded service refuses thousands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from adapters.errors import MinimartError, Overloaded, Unavailable

MEDIA_TYPE: Final = "application/problem+json"
SHOWN: Final = 100  # characters of a refused value that are shown
MOST_ERRORS: Final = 20
INTERNAL: Final = "An internal error; the service's log has it under this request id."
TITLES: Final = {
    400: "Malformed request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request took too long",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid input",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what happened, what is allowed, the fix"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field"],
                "properties": {"field": {"type": "string"}, "value": {"type": "string"}, "allowed": {"type": "string"}},
            },
        },
    },
}
DOCUMENT: Final[dict[str, Any]] = {"description": "Problem document", "content": {MEDIA_TYPE: {"schema": SCHEMA}}}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {"4XX": DOCUMENT, "503": DOCUMENT}


def shorten(value: object) -> str:
    """`value` as text that is safe to show: at most SHOWN characters, control and lone surrogate characters escaped."""
    if isinstance(value, str | bytes | list | tuple | dict) and len(value) > SHOWN:
        short = isinstance(value, str | bytes)
        text = repr(value[:SHOWN]) if short else f"{type(value).__name__} of {len(value)} members"
    else:
        text = repr(value)
    return ascii(text)[1:-1][:SHOWN].replace("\\'", "'") if not text.isprintable() else text[:SHOWN]


def problem(
    request_id: str,
    status: int,
    detail: str,
    *,
    title: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document as a response, with the request id in its body and its header."""
    title = title or TITLES.get(status, "Error")
    body: dict[str, Any] = {
        "type": f"urn:minimart:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = [dict(e) for e in errors]
    return JSONResponse(body, status, {"X-Request-ID": request_id, **(headers or {})}, MEDIA_TYPE)


def request_id_of(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def from_minimart(request: Request, error: Exception) -> JSONResponse:
    """A member of our error family as a problem document; the table of statuses is in adapters/errors.py."""
    assert isinstance(error, MinimartError)
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    errors = [{"field": error.field, "allowed": error.detail}] if error.field else []
    detail = error.detail if error.status != 500 else INTERNAL
    return problem(request_id_of(request), error.status, detail, title=error.title, errors=errors, headers=headers)


async def from_http(request: Request, error: Exception) -> JSONResponse:
    """Unknown routes, wrong methods and other HTTP errors as a problem document."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        detail = "There is no such address here; /openapi.json lists the addresses."
    elif error.status_code == 405:
        allowed = headers.get("Allow") or headers.get("allow") or "see /openapi.json"
        detail = f"{shorten(request.method)} is not allowed here; allowed: {allowed}."
    else:
        detail = str(error.detail)
    return problem(request_id_of(request), error.status_code, detail, headers=headers)


async def from_validation(request: Request, error: Exception) -> JSONResponse:
    """What a request's body, path or query failed to be, each with the field, its value and what is allowed."""
    assert isinstance(error, RequestValidationError)
    properties = _properties(request)
    found = []
    for e in error.errors()[:MOST_ERRORS]:
        place = [str(p) for p in e.get("loc", ())]
        field = ".".join(place[1:]) or (place[0] if place else "body")
        allowed = str(e.get("msg", "")).removeprefix("Value error, ")
        declared = properties.get(place[1]) if len(place) == 2 else None
        if e.get("type") == "extra_forbidden":
            allowed = f"no such field; fields: {', '.join(properties) or 'none'}"
        elif declared:
            allowed = f"{allowed} ({_describe(declared)})"
        found.append({"field": field, "value": shorten(e.get("input")), "allowed": allowed})
    detail = "; ".join(f"{e['field']} = {e['value']}: {e['allowed']}" for e in found[:3])
    return problem(request_id_of(request), 422, detail or "The request is not valid.", errors=found)


def _properties(request: Request) -> dict[str, dict[str, Any]]:
    """The JSON Schema of each field of the route's body model, empty where the body is not one model."""
    field = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(field, "field_info", None), "annotation", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return {}
    return _fields(model)


@lru_cache(maxsize=256)
def _fields(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return dict(model.model_json_schema().get("properties", {}))


def _describe(schema: Mapping[str, Any]) -> str:
    """A field's JSON Schema in words, e.g. `integer, minimum 1, maximum 100, default 20`."""
    if "anyOf" in schema:
        kinds = " or ".join(_describe(s) for s in schema["anyOf"])
        return f"{kinds}, default {schema['default']}" if schema.get("default") is not None else kinds
    words = [str(schema.get("type", "value"))]
    names = {
        "enum": "one of",
        "const": "only",
        "minimum": "minimum",
        "maximum": "maximum",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
        "minLength": "least length",
        "maxLength": "greatest length",
        "minItems": "least members",
        "maxItems": "most members",
        "pattern": "pattern",
        "default": "default",
    }
    words += [f"{word} {schema[key]}" for key, word in names.items() if schema.get(key) is not None]
    return ", ".join(words)
