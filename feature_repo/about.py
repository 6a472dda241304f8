"""What people need to know of a view, beside how it is computed: none of it changes a value. Pure."""

from __future__ import annotations

import msgspec

from feature_repo.on_request import OnRequest


class About(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: stream (kept by the stream worker) or attributes (written by a batch job). `freshness_sla_s`: an event
    that has arrived is readable within so many seconds."""

    description: str = ""
    owner: str = ""
    kind: str = "stream"
    freshness_sla_s: int = 0
    tags: dict[str, str] = {}


class AttributeView(msgspec.Struct, frozen=True, kw_only=True):
    """A view of plain Feast fields: field name -> type."""

    name: str
    entity: str
    join_keys: tuple[str, ...]
    fields: dict[str, str]
    about: About


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What one model or page reads: the views whose features it is answered with, in order, and what is made of them
    and of the request."""

    name: str
    views: tuple[str, ...]
    on_request: tuple[OnRequest, ...] = ()
    description: str = ""
    owner: str = ""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One feature as a registry page shows it; `topics` -> view -> `services` is its lineage."""

    name: str
    view: str
    entity: str
    dtype: str
    meaning: str
    error: str
    owner: str
    kind: str
    freshness_sla_s: int
    topics: tuple[str, ...]
    services: tuple[str, ...]
    tags: dict[str, str]
