"""The OpenAPI description of the events: their own JSON Schemas, with the limits of their contracts."""

from __future__ import annotations

import copy
from typing import Any, Final

from feature_repo import events
from feature_repo.contracts.contract import Contract, schema_fields
from feature_repo.contracts.files import contracts
from feature_repo.contracts.rules import Allowed, Range

FILLED: Final = frozenset({"event_id", "event_time", "category", "price_cents"})  # filled in by us where missing
COMPLETED: Final = frozenset({"ProductClicked", "ProductAddedToCart", "OrderLine"})


def schemas() -> dict[str, Any]:
    """Components by name: every event as it may come in (with what we fill in left optional)."""
    found: dict[str, Any] = {}
    for topic, schema in events.json_schemas().items():
        found |= _limited(schema, contracts()[topic])["$defs"]
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


def _limited(schema: Any, contract: Contract) -> Any:
    """A copy of an event's schema, with the bounds and lists of its contract."""
    found = copy.deepcopy(schema)
    properties: dict[str, Any] = dict(schema_fields(found))
    for rule in contract.row_rules:
        if rule.edge and isinstance(rule, Range):
            properties[rule.field] |= {"minimum": int(rule.least), "maximum": int(rule.most)}
        elif rule.edge and isinstance(rule, Allowed):
            properties[rule.field] |= {"enum": list(rule.values)}
    return found


def _moved(schema: Any) -> Any:
    """The same schema with its references pointing into the OpenAPI document."""
    if isinstance(schema, dict):
        here, there = "#/$defs/", "#/components/schemas/"
        return {k: v.replace(here, there) if k == "$ref" else _moved(v) for k, v in schema.items()}
    return [_moved(s) for s in schema] if isinstance(schema, list) else schema
