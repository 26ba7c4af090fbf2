"""Sources of metrics: the engine's services and the connected Envoys, read at each scrape.

Adapters do not import the engine, so its services are described by their structure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from reconciler.core.judge import Observed
from reconciler.core.record import Record
from reconciler.core.spec import Spec
from reconciler.plan import Deadline
from reconciler.ports.backend import ResourceRequests
from xds.server import Node


class ServiceSource(Protocol):
    """One service of the engine, which only the engine changes."""

    spec: Spec
    record: Record | None
    seen: Observed
    deadline: Deadline | None
    requests: int
    recovers: bool
    asks: ResourceRequests

    @property
    def saved_seconds(self) -> float | None: ...
    @property
    def woke_early(self) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Functions that return present values. Called on the event loop, so they must be fast."""

    services: Callable[[], Mapping[str, ServiceSource]]
    envoys: Callable[[], Mapping[str, Node]]
    holders: Callable[[], Sequence[str]]
    """Holders that are connected to this replica."""
    all_holders: Callable[[], Iterable[str]]
    """Holders that are connected to any replica; `held` includes all of them."""
    ready: Callable[[], bool]
    leads: Callable[[], bool]
    """True if this replica may put services to sleep."""
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    ticks: Callable[[], float] = time.monotonic
    """Seconds of a monotonic clock."""
    refused_streams: Callable[[], Mapping[tuple[str, ...], int]] = dict
    """Streams on the gRPC port that were refused, by kind and gRPC status."""
    plaintext: Callable[[], bool] = lambda: False
    """True if the gRPC port is open without mutual TLS."""
    expiries: Callable[[], Mapping[str, float]] = dict
    """Ends of validity of certificates, in seconds since the epoch, by certificate."""
    records_failing: Callable[[], bool | None] = lambda: None
    """True if records cannot be written to their file; None without a file."""
