"""The place where services run: processes on this machine, or workloads of a cluster."""

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
    """Replicas that exist or that their owner keeps up; 0 only when nothing runs any more; None: not known."""
    endpoints: tuple[str, ...] = ()
    """`ip:port` (IPv6 in brackets) of everything that can be dialled now."""
    diagnosis: Diagnosis | None = None
    """The reason why the service does not become ready; None while nothing is known to be wrong."""
    milestones: Mapping[str, float] = field(default_factory=dict)
    """When the parts of the latest wake were reached, by name, in seconds since the epoch; in order."""
    asks: ResourceRequests = UNKNOWN_REQUESTS


Report = Callable[[WorkloadStatus], None]


class Backend(Protocol):
    """Starts and stops services. Reports through the callback that it was made with, first of all what runs already."""

    def converge(self, service: str, scale: Scale) -> None:
        """Make it so, now and until told otherwise. Returns at once; the same value again costs nothing.

        What shall end is no endpoint any more, however long it takes to: that is reported before this returns, or
        whoever comes in the next moment is sent to what is about to end.
        """

    async def close(self) -> None:
        """Stop working; what becomes of the services is the backend's own business."""
