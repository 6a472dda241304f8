"""Grafana's part in a query: what its ClickHouse plugin puts in the place of macros."""

from __future__ import annotations

import re


def with_macros(sql: str, since_s: float, until_s: float) -> str:
    """The SQL as the plugin sends it for the time from `since_s` to `until_s` (seconds since 1970)."""
    known = {"$__fromTime": f"toDateTime({int(since_s)})", "$__toTime": f"toDateTime({int(until_s)})"}
    for macro, value in known.items():
        sql = sql.replace(macro, value)
    assert "$__" not in sql, f"a macro that the tests do not know: {re.findall(r'[$]__[a-zA-Z_]+', sql)}"
    return sql
