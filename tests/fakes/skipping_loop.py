"""An event loop that waits for nothing: its clock skips to the next timer when no callback is ready.

For code that only sleeps. I/O that is not ready at that moment counts as later than the next timer.
"""

from __future__ import annotations

import asyncio
import selectors


class _SkippingSelector(selectors.DefaultSelector):
    """A selector that adds each timeout to `skipped_seconds` in place of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing is ready, and no timer is set: it would wait forever")
        if not ready and timeout:
            self.skipped_seconds += timeout
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at zero."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.skipped_seconds
