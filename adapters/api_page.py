"""A page for people at /docs: what a service's OpenAPI document says, as plain HTML without scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any, Final

STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:860px;margin:2rem auto;padding:0 1rem;color:#1e2b27;"
    "background:#f6f3ec}h2{font-size:1rem;margin:2rem 0 .3rem}code,pre{font:.85rem ui-monospace,monospace}"
    "pre{background:#fffdf8;border:1px solid #e5dfd2;border-radius:10px;padding:1rem;overflow:auto;max-height:24rem}"
    "b{color:#1f6f5c}table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}"
)
METHODS: Final = ("get", "post", "put", "patch", "delete")


def render(document: Mapping[str, Any]) -> str:
    """The document's operations with their parameters and bodies; `/openapi.json` has all of it."""
    title = escape(str(document["info"]["title"]))
    parts = [
        _operation(path, method, found, document)
        for path, methods in document["paths"].items()
        for method, found in methods.items()
        if method in METHODS
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><h1>{title}</h1><p>For machines: <a href="/openapi.json">/openapi.json</a>. Errors are problem '
        f"documents (RFC 9457).</p>{''.join(parts)}</body></html>"
    )


def _operation(path: str, method: str, found: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{escape(p['in'])}</td>"
        f"<td>{escape(p.get('description', ''))}</td></tr>"
        for p in found.get("parameters", ())
    )
    bodies: list[Mapping[str, Any]] = list(found.get("requestBody", {}).get("content", {}).values())
    body = bodies[0].get("schema") if bodies else None
    shown = f"<pre>{escape(json.dumps(_resolve(body, document), indent=1))}</pre>" if body else ""
    return (
        f"<h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2><p>{escape(str(found.get('summary', '')))}</p>"
        f"{f'<table>{rows}</table>' if rows else ''}{shown}"
    )


def _resolve(schema: Any, document: Mapping[str, Any]) -> Any:
    """The schema that a reference names, one level deep."""
    name = schema.get("$ref", "") if isinstance(schema, Mapping) else ""
    return document.get("components", {}).get("schemas", {}).get(name.rpartition("/")[2], schema) if name else schema
