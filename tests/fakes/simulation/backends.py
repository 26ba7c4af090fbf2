"""The simulated backends of a replica: programs of one machine, and the workload of a cluster.

`view` is what the replica knows of the workload; it changes only when the test lets the backend observe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.simulation.workload import Workload


class MachineBackend:
    """The backend of one machine, which observes its own changes at once."""

    def __init__(self, workload: Workload, status: Callable[[], WorkloadStatus]) -> None:
        self._workload, self._status = workload, status
        self.scale: Scale = None
        self.sent: float | None = None

    def converge(self, service: str, scale: Scale) -> None:
        self.scale = scale

    async def close(self) -> None: ...

    def observe(self) -> WorkloadStatus:
        """Return the present status."""
        return self._status()

    def work(self) -> WorkloadStatus | None:
        """Apply the scale of the plan; return the status if it changed."""
        match self.scale:
            case Zero() if self._workload.replicas:
                self._workload.scale_to(0, "asleep")
            case AtLeast(replicas) if not self._workload.replicas:
                self._workload.scale_to(replicas, "")
            case _:
                return None
        return self._status()

    def zero_arrives(self) -> WorkloadStatus | None:
        """Do nothing: no patch is sent."""
        return None

    def remove(self) -> None:
        self.scale = None


class ClusterBackend:
    """The backend of one replica in a cluster: it sends patches, and observes later."""

    def __init__(
        self,
        workload: Workload,
        status: Callable[[], WorkloadStatus],
        actual: Callable[[], float],
        may_sleep: Callable[[], bool],
    ) -> None:
        self._workload, self._status, self._actual, self._may_sleep = workload, status, actual, may_sleep
        self.scale: Scale = None
        self.sent: float | None = None
        """Actual time at which a patch to zero was sent whose answer is not known yet."""
        self._version = self._sent_version = 0
        self._view: WorkloadStatus | None = None
        self._hides = False
        """True while the endpoints end because of this replica."""

    def converge(self, service: str, scale: Scale) -> WorkloadStatus | None:
        before, hid = self.scale, self._hides
        self.scale = scale
        if isinstance(scale, Zero) and not isinstance(before, Zero):
            self._hides = True
            return self._reported()
        if not isinstance(scale, Zero) and self.sent is None:
            self._hides = False
        return self._reported() if hid and not self._hides else None

    async def close(self) -> None: ...

    def _reported(self) -> WorkloadStatus | None:
        return replace(self._view, endpoints=()) if self._view and self._hides else self._view

    def observe(self) -> WorkloadStatus | None:
        """Update the informers; return the status."""
        self._view, self._version = self._status(), self._workload.version
        if self._view.replicas == 0 and isinstance(self.scale, Zero):
            self._hides = True
        return self._reported()

    def work(self) -> WorkloadStatus | None:
        """Send the scale of the plan."""
        if self._view is None:
            return None
        match self.scale:
            case Zero() if self._view.replicas and self.sent is None and self._may_sleep():
                self.sent, self._sent_version = self._actual(), self._version
            case AtLeast(replicas) if self._view.replicas == 0 and self._workload.replicas == 0:
                self._workload.scale_to(replicas, "")
        return None

    def zero_arrives(self) -> None:
        """Let the patch to zero reach the API server, which rejects it if the object has changed."""
        self.sent = None
        if self._sent_version == self._workload.version:
            self._workload.scale_to(0, "asleep")

    def answered(self) -> WorkloadStatus | None:
        """Take the answer to the patch to zero."""
        if not isinstance(self.scale, Zero):
            self._hides = False
        return self.observe()

    def remove(self) -> None:
        """Drop the removed service, whose workload stays as it is."""
        self.scale, self._view, self._hides = None, None, False
