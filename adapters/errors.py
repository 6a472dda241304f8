"""The one error family.

    MinimartError
    ├── BadInput        the caller's fault: names the field, the value and what is allowed     HTTP 422 · dead-letter
    │   ├── NotFound    the thing asked for does not exist                                    HTTP 404 · drop
    │   ├── TooLarge    body, batch or message over its limit                                 HTTP 413 · dead-letter
    │   └── Conflict    the state does not allow it, or somebody newer has written            HTTP 409 · drop
    ├── Unavailable     a neighbour did not answer in time; trying again may help             HTTP 503 · retry
    │   └── Overloaded  we shed load; Retry-After says when                                   HTTP 429 · retry
    ├── Corrupt         an artifact's digest, schema or version is not what was promised      HTTP 503 · drop
    └── Misconfigured   a setting, port or file of ours is wrong: names the key and the fix   exit 2

Adapters translate vendor errors into these; nobody above them sees a `redis.`, `kafka.` or `tritonclient.` exception.
"""

from __future__ import annotations

from typing import Literal

Handling = Literal["retry", "dead-letter", "drop"]


class MinimartError(Exception):
    """Base of everything we raise. `detail` says what happened, the value, the allowed values and the fix."""

    status: int = 500
    handling: Handling = "drop"
    title: str = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class BadInput(MinimartError):
    status = 422
    handling: Handling = "dead-letter"
    title = "Invalid input"


class NotFound(BadInput):
    status = 404
    handling: Handling = "drop"
    title = "Not found"


class TooLarge(BadInput):
    status = 413
    handling: Handling = "dead-letter"
    title = "Too large"


class Conflict(BadInput):
    status = 409
    handling: Handling = "drop"
    title = "Not possible in this state"


class Unavailable(MinimartError):
    status = 503
    handling: Handling = "retry"
    title = "A dependency is unavailable"


class Overloaded(Unavailable):
    status = 429
    handling: Handling = "retry"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Corrupt(MinimartError):
    status = 503
    handling: Handling = "drop"
    title = "An artifact is corrupt"


class Misconfigured(MinimartError):
    status = 500
    handling: Handling = "drop"
    title = "Misconfigured"
