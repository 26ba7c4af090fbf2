"""Port for the workloads of services: local processes, or workloads of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.core.reasons import Diagnosis
from reconciler.plan import Scale


@dataclass(frozen=True, slots=True)
class ResourceRequests:
    """Resource requests of each replica; None if unknown or unset."""

    cpu_cores: float | None = None
    memory_bytes: float | None = None


UNKNOWN_REQUESTS = ResourceRequests()


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """The status of one service's workload; each report replaces the previous one."""

    service: str
    replicas: int | None
    """Replicas that exist or that their owner requests; 0 only if no replica runs; None: unknown."""
    endpoints: tuple[str, ...] = ()
    """`ip:port` (IPv6 in brackets) of every endpoint that can be dialed now."""
    diagnosis: Diagnosis | None = None
    """The reason why the service does not become ready; None while no fault is known."""
    milestones: Mapping[str, float] = field(default_factory=dict)
    """Times at which the parts of the latest wake were reached, by name, in order (seconds since the epoch)."""
    asks: ResourceRequests = UNKNOWN_REQUESTS
    early: bool = False
    """True if an endpoint is used because it passed its probes here, before the cluster calls it ready."""
    saved_seconds: float | None = None
    """Time from the first use of such an endpoint in the latest wake until the cluster called it ready."""
    end: str | None = None
    """The reason why earlier processes have ended, for people; None: unknown, or they have not."""


Report = Callable[[WorkloadStatus], None]


class Backend(Protocol):
    """Backend that starts and stops services. Reports to its callback, beginning with the services that already run.

    It never reports from within `converge`, which returns the status that it changes.
    """

    def converge(self, service: str, scale: Scale) -> WorkloadStatus | None:
        """Converge to a scale until the next call. Returns immediately; the same value again costs nothing.

        A terminating replica is not an endpoint, however long its end takes. A call that removes endpoints returns
        the status; otherwise a new client could be routed to a terminating endpoint.
        """
