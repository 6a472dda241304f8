"""A contract as the pandera schema of a table: columns, types, nulls only where they are allowed, and its row rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandera.errors
import pandera.polars as pa
import polars as pl

from feature_repo.contracts.contract import Contract
from pipelines.contract_expressions import broken

PLACE: Final = ("_partition", "_offset", "_arrival")


def row_schema(contract: Contract, types: Mapping[str, Any], required: frozenset[str]) -> Any:
    """The pandera schema of a contract's rows: columns with their types, nulls only where optional, the row rules."""
    columns = {name: pa.Column(kind, nullable=name not in required, name=name) for name, kind in types.items()}
    checks = [
        pa.Check(lambda data, r=rule: data.lazyframe.select(~broken(r)), name=rule.text, n_failure_cases=1)
        for rule in contract.row_rules
    ]
    return pa.DataFrameSchema(columns, checks=checks, strict=True, name=contract.name)


def failed(schema: Any, frame: pl.DataFrame) -> dict[str, list[str]]:
    """What pandera finds: `rows` names the row rules that some row breaks, `schema` says what is wrong with columns."""
    found: dict[str, list[str]] = {"rows": [], "schema": []}
    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        rules = {check.name for check in schema.checks}
        for row in error.failure_cases.iter_rows(named=True):
            if row["check"] in rules:
                found["rows"].append(row["check"])
            else:
                column = row["column"] or row["failure_case"]
                found["schema"].append(f"{column}: {row['check']} ({row['failure_case']})")
    return {kind: list(dict.fromkeys(lines)) for kind, lines in found.items()}
