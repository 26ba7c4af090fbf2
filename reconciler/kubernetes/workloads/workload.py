"""One service of the backend: what is wanted, who is about to end, who was reached, how far its wake has got.

Rule: a pod that was there while zero replicas were asked for is about to end, whatever the EndpointSlices still say of
it: they are changed last. Where it stays ready for some seconds after it was asked for again, it has been spared.
Counterpart: `backend.py`, which brings together what each of them needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Pod
from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.scaler import TargetScaler
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import Running

UNMARK_AFTER_SECONDS = 3.0
"""Controllers delete pods within moments; one that is ready for this long after its workload was asked for stays."""
MILESTONES = ("scale", "scheduled", "running", "ready")


class Workload:
    """Mutable, and only by the backend."""

    __slots__ = (
        "awaited_since", "began_at", "desired", "entry", "milestones", "name", "previous_pods", "probes", "reachable",
        "reported", "scaled", "selector", "terminating", "trusts_kubernetes", "unmark_timer",
    )  # fmt: skip

    def __init__(self, entry: ServiceConfig, scaled: TargetScaler) -> None:
        self.name, self.entry, self.scaled = entry.spec.name, entry, scaled
        self.desired: Scale = None
        self.reported: Running | None = None
        self.terminating: set[str] = set()
        """Pods that are about to end."""
        self.unmark_timer: asyncio.TimerHandle | None = None
        self.reachable: dict[str, str] = {}
        """Pods by address that people are sent to."""
        self.probes: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.trusts_kubernetes = False
        """Whether dials from here are not answered, so that Kubernetes is believed."""
        self.selector: str | None = None
        """Of the Service, where the target has none; asked for once in each wake."""
        self.began_at = 0.0
        """When the latest wake began, in seconds since the epoch."""
        self.awaited_since = 0.0
        """Since when its pods are awaited, by a clock that nobody sets."""
        self.previous_pods: frozenset[str] = frozenset()
        """Pods of a wake that was given up: they are ending too, though they never were endpoints."""
        self.milestones: dict[str, float] = {}

    @property
    def is_waking(self) -> bool:
        return isinstance(self.desired, AtLeast)

    def begin(self, at: float) -> None:
        """A wake begins."""
        self.began_at, self.milestones, self.selector = at, {}, None

    def mark_terminating(self, offers: Sequence[PodEndpoint]) -> set[str]:
        """These are about to end; those of them of which that was not known."""
        added = {offer.pod for offer in offers} - self.terminating
        self.terminating |= added
        self.cancel_unmark()
        return added

    def routable(self, offers: Sequence[PodEndpoint]) -> list[PodEndpoint]:
        """Those that somebody may be sent to."""
        seen = self.scaled.seen
        if self.terminating:
            self.terminating &= {offer.pod for offer in offers}
        if seen is not None and not seen.replicas:
            self.mark_terminating(offers)
            return []
        if isinstance(self.desired, Zero) or self.scaled.in_doubt:
            return []
        return [offer for offer in offers if offer.pod not in self.terminating]

    def unmark_later(self, offers: Sequence[PodEndpoint], then: Callable[[], None]) -> None:
        """Whoever is still ready in some seconds was not meant."""
        seen, unsure = self.scaled.seen, self.scaled.in_doubt or isinstance(self.desired, Zero)
        if not self.terminating or self.unmark_timer is not None or unsure or (seen is not None and not seen.replicas):
            return
        if any(offer.pod in self.terminating and not offer.terminating for offer in offers):
            self.unmark_timer = asyncio.get_running_loop().call_later(UNMARK_AFTER_SECONDS, then)

    def unmark(self, offers: Sequence[PodEndpoint]) -> None:
        self.unmark_timer = None
        self.terminating -= {offer.pod for offer in offers if not offer.terminating}

    def cancel_unmark(self) -> None:
        if self.unmark_timer is not None:
            self.unmark_timer.cancel()
            self.unmark_timer = None

    def record_milestones(self, pods: Sequence[Pod], now: float) -> None:
        """Note how far the pods have got; what comes late is as if it had come with what follows it."""
        live = [
            pod for pod in pods if pod.metadata.deletion_timestamp is None and pod.metadata.uid not in self.terminating
        ]
        if self.scaled.woken_at is not None and self.scaled.woken_at >= self.began_at:
            self.milestones.setdefault("scale", self.scaled.woken_at)
        for name, has in (("scheduled", _is_scheduled), ("running", _runs), ("ready", _is_ready)):
            if name not in self.milestones and any(has(pod) for pod in live):
                self.milestones[name] = now

    def record_ready(self, now: float) -> None:
        """An endpoint can be reached: there is no milestone after this."""
        if self.scaled.woken_at is not None and self.scaled.woken_at >= self.began_at:
            self.milestones.setdefault("scale", self.scaled.woken_at)
        self.milestones.setdefault("ready", now)

    def close(self) -> None:
        self.cancel_unmark()
        for dial in self.probes.values():
            dial.cancel()


def ordered_milestones(milestones: dict[str, float]) -> dict[str, float]:
    """In their order, and none before the one that it follows."""
    found: dict[str, float] = {}
    for name in MILESTONES:
        if name in milestones:
            found[name] = max([milestones[name], *found.values()])
    return found


def _is_scheduled(pod: Pod) -> bool:
    return bool(pod.spec.node_name)


def _runs(pod: Pod) -> bool:
    return any(container.state.running for container in pod.status.container_statuses)


def _is_ready(pod: Pod) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)
