"""The text of `.env.example`, made from settings.py so that the two cannot drift apart."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from settings import ROOT, Settings

HEADER = """\
# Every setting with its default. Copy this file to .env and uncomment what you change; the environment wins over .env.
# Made from settings.py by `make env-example`.
"""


def render() -> str:
    """One commented line per setting, with its description and what is allowed above it."""
    return HEADER + "".join(_entry(name, field) for name, field in Settings.model_fields.items())


def _entry(name: str, field: FieldInfo) -> str:
    allowed = _allowed(field)
    text = field.description or _implied(name)
    return f"\n# {text}{f' [{allowed}]' if allowed else ''}\n# MINIMART_{name.upper()}={_default(field.default)}\n"


def _implied(name: str) -> str:
    """Ports and budgets speak for themselves in settings.py."""
    if name.endswith("_port"):
        return f"port of {name.removesuffix('_port')}"
    if name.startswith("budget_"):
        return f"milliseconds that the stage {name.removeprefix('budget_').removesuffix('_ms')} may take"
    return name


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return " | ".join(map(str, get_args(field.annotation)))
    bounds = {key: getattr(one, key) for one in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(one, key)}
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return ", ".join(f"{signs[key]} {value}" for key, value in bounds.items())


def _default(value: Any) -> str:
    if value is None:
        return ""
    return str(value).replace(f"{ROOT}/", "")
