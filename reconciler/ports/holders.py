"""The holders, which keep connections waiting while a service wakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reconciler.core.spec import Spec


@dataclass(frozen=True, slots=True)
class Order:
    """What holders do with the connections of one service."""

    spec: Spec
    address: str
    """The hold address, `ip:port`."""
    release_to: tuple[str, ...]
    """Endpoints to connect them to; empty: they wait."""
    reason: str | None
    """Why the wake is not getting on."""


@dataclass(frozen=True, slots=True)
class Held:
    """One service's connections in all holders."""

    service: str
    held: int | None
    """None while a holder is missing."""
    relayed: int | None
    acked_at: float | None = None
    """When the last holder had the present order in force (seconds since the epoch); None until then."""
    released: int = 0
    refused: int = 0
    gone: int = 0
    held_since: float | None = None
    """When the first of those that wait (or waited last) came, in seconds since the epoch."""
    peer: str | None = None
    """Who that was, as `ip:port`."""
    first_byte_at: float | None = None
    """When the latest wait that ended well saw its first byte."""


Report = Callable[[Held], None]


class Holders(Protocol):
    """Tells holders what to do. Reports every change of `Held`."""

    def order(self, service: str, order: Order | None) -> None:
        """This is the service's order from now on; None: it is no more. The same value again costs nothing."""
