"""Whether one version of an event's JSON Schema may follow another: what an old reader relies on must stay.

Allowed: wider limits, a new optional field (readers refuse fields they do not know, so they are deployed first).
Refused: a field removed or renamed, another type, another unit, narrower limits, a field that becomes required or
ceases to be. Units stand in the contracts and are written into the schema files as `x-unit`; those files are the
baseline, so `python -m feature_repo.schema_compatibility` writes them only when nothing is refused. What breaks readers
is a new version, announced in the contract as many days before as it promises; the old version's file stays.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from feature_repo import events
from feature_repo.contracts.contract import Contract, is_number, schema_fields
from feature_repo.contracts.files import contracts

FOLDER: Final = Path(__file__).parent / "schemas"
UNIT: Final = "x-unit"
_EXACT: Final = ("type", "pattern", "enum", "const", "format", "additionalProperties")
_LIMITS: Final = {
    "minimum": 1, "exclusiveMinimum": 1, "minLength": 1, "minItems": 1,
    "maximum": -1, "exclusiveMaximum": -1, "maxLength": -1, "maxItems": -1,
}  # fmt: skip
_FILE: Final = re.compile(r"(?P<topic>.+)\.v(?P<version>\d+)\.json")
Schema = Mapping[str, Any]


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every event by topic, with the units that its contract states."""
    return {topic: with_units(schema, contracts()[topic]) for topic, schema in events.json_schemas().items()}  # type: ignore[arg-type]


def with_units(schema: Schema, contract: Contract) -> dict[str, Any]:
    """A copy of an event's schema in which every number says its unit."""
    found = copy.deepcopy(dict(schema))
    for path, field in schema_fields(found):
        if is_number(field) and path in contract.fields:
            field[UNIT] = contract.unit(path)  # type: ignore[index]
    return found


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
    if UNIT in old and old[UNIT] != new.get(UNIT):
        yield f"{at}: its unit was {old[UNIT]!r} and is {new.get(UNIT)!r}"
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
    for name in sorted(before.keys() - after.keys()):
        alike = [other for other in sorted(after.keys() - before.keys()) if _alike(before[name], after[other])]
        yield f"{at}.{name}: removed or renamed" + (f" (to {alike[0]}?)" if alike else "")
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{at}.{name}: required now, it was {'optional' if name in before else 'not there'}"
    for name in sorted(set(old.get("required", ())) - set(new.get("required", ()))):
        yield f"{at}.{name}: optional now, readers rely on it"
    for name in sorted(before.keys() & after.keys()):
        yield from _compare(f"{at}.{name}", before[name], after[name], old_defs, new_defs)


def _alike(one: Schema, other: Schema) -> bool:
    """Whether two properties hold values of one kind, so that one may be the other under a new name."""
    kinds = [sorted(str(k.get("type")) for k in (p, *p.get("anyOf", ()))) for p in (one, other)]
    return kinds[0] == kinds[1]


def _resolve(schema: Schema, defs: Schema) -> Schema:
    reference = schema.get("$ref")
    return schema if reference is None else defs[reference.rsplit("/", 1)[-1]]


def text(schema: object) -> str:
    """The schema as it lies in its file."""
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def refusals(contract: Contract, schema: Schema, folder: Path = FOLDER) -> list[str]:
    """Why this schema of a topic may not follow the committed ones, each line with the fix; empty if it may."""
    committed = committed_versions(contract.name, folder)
    newest = max(committed, default=0)
    told = next((p.get("maximum") for path, p in schema_fields(schema) if path == "version"), None)
    wrong = []
    if told != contract.version:
        wrong.append(f"events.py takes versions up to {told}, the contract says {contract.version}; make them one")
    if contract.version < newest or contract.version > newest + 1:
        wrong.append(f"version {contract.version} after version {newest}; go on with {newest} or {newest + 1}")
    elif contract.version == newest:
        old = json.loads(committed[newest].read_text())
        wrong += [f"{line}. {_fix(contract)}" for line in problems(old, schema)]
    elif newest:
        wrong += _unannounced(contract)
    return [f"{contract.name}: {line}" for line in wrong]


def _fix(contract: Contract) -> str:
    new, days = contract.version + 1, contract.change.notice_days
    return (f"Readers of version {contract.version} rely on it: put it back, or make this version {new}: "
            f"version = {new} and a [[change.announced]] entry, {days} days ahead, in "
            f"feature_repo/contracts/topics/{contract.name}.toml, and le={new} for its version in events.py")


def _unannounced(contract: Contract) -> list[str]:
    notice, needed = contract.change.notice_of(contract.version), contract.change.notice_days
    if notice is None:
        return [f"version {contract.version} was not announced; add a [[change.announced]] entry to its contract"]
    days = (notice.begins - notice.told).days
    if days < needed:
        return [f"version {contract.version} begins {days} days after it was told; the contract promises {needed}"]
    return []


def committed_versions(topic: str, folder: Path = FOLDER) -> dict[int, Path]:
    """Version -> file of the schemas of a topic that are committed."""
    found = ((_FILE.fullmatch(path.name), path) for path in folder.glob("*.json"))
    return {int(m["version"]): path for m, path in found if m is not None and m["topic"] == topic}


def write(folder: Path = FOLDER) -> list[str]:
    """Write `<folder>/<topic>.v<version>.json` of every event; returns what is refused, and then writes nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    made = schemas()
    refused = [line for topic, schema in made.items() for line in refusals(contracts()[topic], schema, folder)]
    if not refused:
        for topic, schema in made.items():
            (folder / f"{topic}.v{contracts()[topic].version}.json").write_text(text(schema))
    return refused


if __name__ == "__main__":
    raise SystemExit("\n".join(write()) or None)
