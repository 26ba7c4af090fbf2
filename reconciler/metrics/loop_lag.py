"""How late the event loop is: everything here waits for everything else, and this says for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_SECONDS = 1.0


class LoopLag:
    """Tells `observe`, each second, by how many seconds the loop came too late to a timer."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._arm(asyncio.get_running_loop())

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + INTERVAL_SECONDS
        self._timer = loop.call_at(due, self._ring, loop, due)

    def _ring(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._observe(max(0.0, loop.time() - due))
        self._arm(loop)
