"""What the store said last, for when it says nothing: bounded by bytes, the longest unread goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from adapters.online_rows import Stored
from adapters.online_store import Key

ENTRY_BYTES = 400  # of an entry beside its value: key, tuple, place in the dict


class LastKnown:
    """(view, key) -> (row, when it was read, ms). Rows that the store does not have are forgotten."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: OrderedDict[tuple[str, Key], tuple[Stored, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, view: str, keys: Sequence[Key], rows: Sequence[Stored | None], now_ms: int) -> None:
        """Remember what was read now."""
        for key, row in zip(keys, rows, strict=True):
            at = (view, key)
            before = self._rows.pop(at, None)
            if before is not None:
                self.bytes -= _size(before[0])
            if row is not None:
                self._rows[at] = (row, now_ms)
                self.bytes += _size(row)
        while self.bytes > self._most_bytes:
            _, (gone, _) = self._rows.popitem(last=False)
            self.bytes -= _size(gone)

    def find(self, view: str, key: Key) -> tuple[Stored, int] | None:
        return self._rows.get((view, key))


def _size(row: Stored) -> int:
    return ENTRY_BYTES + (len(row) if isinstance(row, bytes) else 64 * len(row.values))
