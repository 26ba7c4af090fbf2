"""Waking up less often for a flow that has been bulk for long: the kernel is to say nothing until much has come.

That is SO_RCVLOWAT of socket(7). The kernel makes an exception for an end, a reset, and a receive window that is used
up, but not for a last message that is shorter than the mark, behind which nothing comes: so a timer looks, and a flow
that did not move between two looks is not patient any more. Counterpart: `flow.py`.
"""

from __future__ import annotations

import socket
from typing import Protocol

from tproxy.io.loop import Loop

LOW_WATER = 1 << 18
LOOK_SECONDS = 0.005
"""Twice this is the longest that a last message may be kept back."""


class Mover(Protocol):
    """The flow, as far as patience is concerned."""

    moved: int

    def lost_patience(self) -> None:
        """It is not patient any more."""


class Patience:
    """One flow's, from when it is made until it is lost or ended."""

    __slots__ = ("_flow", "_looked_at", "_loop", "_source", "_timer")

    def __init__(self, flow: Mover, loop: Loop, source: int) -> None:
        self._flow, self._loop, self._source = flow, loop, source
        _set_low_water(source, LOW_WATER)
        self._look_again()

    def end(self) -> None:
        """The flow moves nothing any more; its source may be closed."""
        self._timer.cancel()

    def _look_again(self) -> None:
        self._looked_at = self._flow.moved
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if self._flow.moved != self._looked_at:
            self._look_again()
            return
        _set_low_water(self._source, 1)
        self._flow.lost_patience()


def _set_low_water(fd: int, size: int) -> None:
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
    finally:
        borrowed.detach()
