"""Whether one version of an event's JSON Schema may follow another: what an old reader relies on must stay.

Allowed: wider limits, a new optional field (readers refuse fields they do not know, so they are deployed first).
Allowed: wider limits, a new optional field (readers refuse unknown fields, so they are deployed before writers).
for a number is what its description says. `python -m feature_repo.schema_compatibility` writes the schema files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from feature_repo import events

FOLDER: Final = Path(__file__).parent / "schemas"
_EXACT: Final = ("type", "pattern", "enum", "const", "format", "additionalProperties")
_LIMITS: Final = {
    "minimum": 1, "exclusiveMinimum": 1, "minLength": 1, "minItems": 1,
    "maximum": -1, "exclusiveMaximum": -1, "maxLength": -1, "maxItems": -1,
}  # fmt: skip
Schema = Mapping[str, Any]


def problems(old: Schema, new: Schema) -> list[str]:
    """What in `new` breaks those who hold on to `old`, one line each; empty when it is compatible."""
    return list(_compare("$", old, new, old.get("$defs", {}), new.get("$defs", {})))


def _compare(at: str, old: Schema, new: Schema, old_defs: Schema, new_defs: Schema) -> Iterator[str]:
    old, new = _resolve(old, old_defs), _resolve(new, new_defs)
    for key in _EXACT:
        if old.get(key) != new.get(key):
            yield f"{at}: {key} was {old.get(key)!r} and is {new.get(key)!r}"
    for key, narrower in _LIMITS.items():
        before, after = old.get(key), new.get(key)
        if after is not None and (before is None or (after - before) * narrower > 0):
            yield f"{at}: {key} was {before} and is {after}, which refuses what was allowed"
    if old.get("type") in ("integer", "number") and old.get("description") != new.get("description"):
        yield f"{at}: its unit was {old.get('description')!r} and is {new.get('description')!r}"
    yield from _properties(at, old, new, old_defs, new_defs)
    if ("items" in old) != ("items" in new):
        yield f"{at}: it became or ceased to be a list"
    elif "items" in old:
        yield from _compare(f"{at}[]", old["items"], new["items"], old_defs, new_defs)
    before, after = old.get("anyOf", ()), new.get("anyOf", ())
    if len(before) != len(after):
        yield f"{at}: it had {len(before)} alternatives and has {len(after)}"
    for one, other in zip(before, after, strict=False):
        yield from _compare(at, one, other, old_defs, new_defs)


def _properties(at: str, old: Schema, new: Schema, old_defs: Schema, new_defs: Schema) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{at}.{name}: removed or renamed"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{at}.{name}: required now, it was {'optional' if name in before else 'not there'}"
    for name in sorted(set(old.get("required", ())) - set(new.get("required", ()))):
        yield f"{at}.{name}: optional now, readers rely on it"
    for name in before.keys() & after.keys():
        yield from _compare(f"{at}.{name}", before[name], after[name], old_defs, new_defs)


def _resolve(schema: Schema, defs: Schema) -> Schema:
    reference = schema.get("$ref")
    return schema if reference is None else defs[reference.rsplit("/", 1)[-1]]


def text(schema: object) -> str:
    """The schema as it lies in its file."""
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write every event's schema to `<folder>/<topic>.v<version>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for topic, schema in events.json_schemas().items():
        (folder / f"{topic}.v1.json").write_text(text(schema))


if __name__ == "__main__":
    write()
