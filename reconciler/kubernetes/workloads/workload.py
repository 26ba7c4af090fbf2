"""The workload of one service: its desired scale, terminating pods, reachable endpoints, and progress of its wake.

A pod that existed while zero replicas were requested is terminating, even if the EndpointSlices still list it as ready:
they are updated last. If it stays ready for some seconds after replicas were requested again, it is unmarked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reconciler.kubernetes.config.service_config import Readiness, ServiceConfig
from reconciler.kubernetes.types.builtin import Pod
from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.scaler import TargetScaler
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import WorkloadStatus

UNMARK_AFTER_SECONDS = 3.0
"""A pod that is still ready after this time is not being deleted: controllers delete pods within moments."""
MILESTONES = ("scale", "scheduled", "running", "ready")
NONE: frozenset[str] = frozenset()
"""Shared by all workloads: each empty set would take 216 bytes."""


@dataclass(slots=True)
class EarlyEndpoint:
    """An endpoint whose pod zenvoy probes, because Kubernetes does not call it ready."""

    pod: str
    restarts: tuple[int, ...]
    """Number of restarts of each container before."""
    by_probes: bool
    """False if Kubernetes calls its containers ready, and only the EndpointSlice is late."""
    task: asyncio.Task[None]
    passed_at: float | None = None
    """Time since which it is used, in seconds since the epoch; None before."""


@dataclass(slots=True, eq=False)
class Workload:
    """The mutable state of one service, which only the backend changes."""

    config: ServiceConfig
    scaler: TargetScaler
    desired: Scale = None
    reported: WorkloadStatus | None = None
    terminating: set[str] = field(default_factory=set)
    """Uids of pods that are terminating."""
    unmark_timer: asyncio.TimerHandle | None = None
    reachable: dict[str, str] = field(default_factory=dict)
    """Uids of pods by the address that gets connections."""
    dials: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)
    """Dials in flight, by address and uid of the pod."""
    early: dict[str, EarlyEndpoint] = field(default_factory=dict)
    """Endpoints that are probed, by address."""
    unready: frozenset[str] = NONE
    """Uids of pods that Kubernetes called ready before, and no longer."""
    trusts_kubernetes: bool = False
    """True if dials are not answered, so that Kubernetes' readiness is trusted."""
    began_at: float = 0.0
    """Start of the latest wake, in seconds since the epoch."""
    awaited_since: float = 0.0
    """Start of waiting for its pods, by a monotonic clock."""
    previous_pods: frozenset[str] = NONE
    """Uids of the pods of an abandoned wake: they are terminating too, although they never were endpoints."""
    milestones: dict[str, float] = field(default_factory=dict)
    saved_seconds: float | None = None
    """Time from the first use of an early endpoint in this wake until Kubernetes called it ready."""

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.config.spec.name

    @property
    def is_waking(self) -> bool:
        """True if replicas are desired."""
        return isinstance(self.desired, AtLeast)

    @property
    def is_early(self) -> bool:
        """True if an endpoint is used because it passed zenvoy's own run of its probes."""
        return any(one.by_probes and one.passed_at is not None for one in self.early.values())

    @property
    def runs_probes(self) -> bool:
        """True if zenvoy runs the probes of its pods."""
        return self.config.readiness is Readiness.PROBES

    def begin(self, at: float) -> None:
        """Start a wake."""
        self.began_at, self.milestones, self.saved_seconds = at, {}, None

    def mark_terminating(self, endpoints: Sequence[PodEndpoint]) -> set[str]:
        """Mark the pods of endpoints as terminating, and return the newly marked ones."""
        added = {endpoint.pod for endpoint in endpoints} - self.terminating
        self.terminating |= added
        self.cancel_unmark()
        return added

    def routable(self, endpoints: Sequence[PodEndpoint]) -> list[PodEndpoint]:
        """Return the endpoints that may get connections, those that are starting last."""
        if self.terminating:
            self.terminating &= {endpoint.pod for endpoint in endpoints}
        if self.scaler.observer.is_at_zero:
            self.mark_terminating(endpoints)
            return []
        if isinstance(self.desired, Zero) or self.scaler.zero_pending:
            return []
        return [endpoint for endpoint in endpoints if endpoint.pod not in self.terminating]

    def unmark_later(self, endpoints: Sequence[PodEndpoint], then: Callable[[], None]) -> None:
        """Call `then` in some seconds if marked pods are still ready."""
        scaler = self.scaler
        is_ending = scaler.zero_pending or scaler.observer.is_at_zero or isinstance(self.desired, Zero)
        if is_ending or not self.terminating or self.unmark_timer is not None:
            return
        if any(endpoint.pod in self.terminating and not endpoint.terminating for endpoint in endpoints):
            self.unmark_timer = asyncio.get_running_loop().call_later(UNMARK_AFTER_SECONDS, then)

    def unmark(self, endpoints: Sequence[PodEndpoint]) -> None:
        """Unmark the pods that are still ready."""
        self.unmark_timer = None
        self.terminating -= {endpoint.pod for endpoint in endpoints if not endpoint.terminating}

    def cancel_unmark(self) -> None:
        """Cancel a call that `unmark_later` scheduled."""
        if self.unmark_timer is not None:
            self.unmark_timer.cancel()
            self.unmark_timer = None

    def record_milestones(self, pods: Sequence[Pod], now: float) -> None:
        """Record the progress of the pods."""
        self._record_scale()
        live = [
            pod for pod in pods if pod.metadata.deletion_timestamp is None and pod.metadata.uid not in self.terminating
        ]
        for name, is_reached in (
            ("scheduled", any(pod.spec.node_name for pod in live)),
            ("running", any(container.state.running for pod in live for container in pod.status.container_statuses)),
            ("ready", any(pod.is_ready for pod in live)),
        ):
            if is_reached:
                self.milestones.setdefault(name, now)

    def record_ready(self, now: float) -> None:
        """Record that an endpoint is reachable, which is the last milestone."""
        self._record_scale()
        self.milestones.setdefault("ready", now)

    def _record_scale(self) -> None:
        if self.scaler.woken_at is not None and self.scaler.woken_at >= self.began_at:
            self.milestones.setdefault("scale", self.scaler.woken_at)

    def drop_early(self, address: str) -> None:
        """Stop probing an endpoint, and using it before Kubernetes calls its pod ready."""
        self.early.pop(address).task.cancel()

    def hand_over(self, address: str, now: float) -> None:
        """Leave an endpoint to Kubernetes, which now calls its pod ready; if it is in use, without another dial."""
        early = self.early.pop(address)
        early.task.cancel()
        if early.passed_at is not None:
            self.reachable[address] = early.pod
            if self.saved_seconds is None:
                self.saved_seconds = max(0.0, now - early.passed_at)

    def close(self) -> None:
        """Cancel timers, dials and probes."""
        self.cancel_unmark()
        for early in self.early.values():
            early.task.cancel()
        for dial in self.dials.values():
            dial.cancel()


def ordered_milestones(milestones: dict[str, float]) -> dict[str, float]:
    """Return the milestones in order; one that was observed late gets at least the time of its predecessor."""
    found: dict[str, float] = {}
    for name in MILESTONES:
        if name in milestones:
            found[name] = max([milestones[name], *found.values()])
    return found
