"""How often Python looks for garbage in cycles: a fifth of what a wake costs among many services, unless it is told."""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000
"""Made and not yet dropped, before those alone are looked at; Python's own number, 700, is a fraction of one wake."""


def settle_memory() -> None:
    """What there is by now stays for good: all services, routes and messages. To be called once they are there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)
