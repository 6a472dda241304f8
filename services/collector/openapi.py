"""The OpenAPI description of the events, made from the events' own JSON Schemas."""

from __future__ import annotations

import copy
from typing import Any, Final

from feature_repo import events

FILLED: Final = frozenset({"event_id", "event_time", "category", "price_cents"})  # filled in by us where missing
COMPLETED: Final = frozenset({"ProductClicked", "ProductAddedToCart", "OrderLine"})


def schemas() -> dict[str, Any]:
    """Components by name: every event as it may come in (with what we fill in left optional)."""
    found: dict[str, Any] = {}
    for schema in events.json_schemas().values():
        found |= copy.deepcopy(schema)["$defs"]  # type: ignore[index]
    for name, schema in found.items():
        optional = FILLED if name in COMPLETED else FILLED - {"category", "price_cents"}
        schema["required"] = [field for field in schema.get("required", ()) if field not in optional]
    return {name: _moved(schema) for name, schema in found.items()}


def body() -> dict[str, Any]:
    """The request body: one event or a list of them."""
    kinds = [{"$ref": f"#/components/schemas/{e.__name__}"} for e in events.EVENTS]
    event = {"oneOf": kinds, "discriminator": {"propertyName": "type"}}
    batch = {"type": "array", "items": event, "minItems": 1, "maxItems": 1000}
    return {"required": True, "content": {"application/json": {"schema": {"anyOf": [event, batch]}}}}


def _moved(schema: Any) -> Any:
    """The same schema with its references pointing into the OpenAPI document."""
    if isinstance(schema, dict):
        here, there = "#/$defs/", "#/components/schemas/"
        return {k: v.replace(here, there) if k == "$ref" else _moved(v) for k, v in schema.items()}
    return [_moved(s) for s in schema] if isinstance(schema, list) else schema
