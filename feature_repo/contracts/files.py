"""Reads the contract files: `topics/<topic>.toml` and `tables/<table>.toml`, with what `shared/` holds for several.

A file that does not keep to the form, or leaves something of its event unsaid, is refused when it is read.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from feature_repo import events
from feature_repo.contracts.contract import Contract, ContractBroken, hold_to_schema

FOLDER: Final = Path(__file__).parent
_SHARED: Final = ("fields", "rules")


@cache
def contracts() -> dict[str, Contract]:
    """Every contract by name: topics first, each kind by name. Raises ContractBroken."""
    return load(FOLDER)


def load(folder: Path) -> dict[str, Contract]:
    """The contracts of a folder. Raises ContractBroken, naming the file, for the first that is none."""
    found = [_read(path, folder / "shared") for kind in ("topics", "tables")
             for path in sorted((folder / kind).glob("*.toml"))]  # fmt: skip
    _hold_together({contract.name: contract for contract in found})
    return {contract.name: contract for contract in found}


def _read(path: Path, shared: Path) -> Contract:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        for name in reversed(raw.get("includes", ())):
            common = tomllib.loads((shared / f"{name}.toml").read_text(encoding="utf-8"))
            raw = {**raw, "fields": {**common.get("fields", {}), **raw.get("fields", {})},
                   "rules": [*common.get("rules", ()), *raw.get("rules", ())]}  # fmt: skip
        contract = msgspec.convert({"name": path.stem, **raw}, Contract)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise ContractBroken(f"{path.parent.name}/{path.name}: {error}") from None
    if contract.name != path.stem:
        raise ContractBroken(f"{path.parent.name}/{path.name}: its name is {contract.name!r}; call the file after it")
    if wrong := _unsaid(contract):
        raise ContractBroken("\n".join(wrong))
    return contract


def _unsaid(contract: Contract) -> list[str]:
    if not contract.schema:
        lacking = [name for name, field in contract.fields.items() if not field.type]
        return [f"contract {contract.name}: [fields.{name!r}]: no schema states its type; say it" for name in lacking]
    schema: Any = events.json_schemas().get(contract.name)
    if schema is None or contract.schema != schema["$ref"].rsplit("/", 1)[-1]:
        return [f"contract {contract.name}: schema = {contract.schema!r} is not the event of this topic"]
    return hold_to_schema(contract, schema)


def _hold_together(found: dict[str, Contract]) -> None:
    """Every reference leads to a field of another contract, and every table is made from topics that are there."""
    for contract in found.values():
        if unknown := set(contract.made_from) - set(found):
            raise ContractBroken(f"contract {contract.name}: made_from = {sorted(unknown)}: there is no such topic")
        for rule in contract.rules:
            to, field = getattr(rule, "to", None), getattr(rule, "to_field", "")
            if to is not None and (to not in found or field not in found[to].fields):
                raise ContractBroken(f"contract {contract.name}: {rule.text}: there is no {to}.{field}")
