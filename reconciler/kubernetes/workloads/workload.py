"""One service of the backend: what is wanted, who is about to end, who was reached, how far its wake has got.

Rule: a pod that was there while zero replicas were asked for is about to end, whatever the EndpointSlices still say of
it: they are changed last. Where it stays ready for some seconds after it was asked for again, it has been spared.
Counterpart: `backend.py`, which brings together what each of them needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from reconciler.kubernetes.config.service_config import Entry
from reconciler.kubernetes.types.builtin import Pod
from reconciler.kubernetes.workloads.endpoints import Offer
from reconciler.kubernetes.workloads.scaler import Scaled
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import Running

SPARED_SECONDS = 3.0
"""Controllers delete pods within moments; one that is ready for this long after its workload was asked for stays."""
MILESTONES = ("scale", "scheduled", "running", "ready")


class Unit:
    """Mutable, and only by the backend."""

    __slots__ = (
        "awaited_ticks", "began_at", "blind", "dials", "doomed", "entry", "milestones", "name", "past", "reached",
        "scaled", "selector", "sparing", "told", "wanted",
    )  # fmt: skip

    def __init__(self, entry: Entry, scaled: Scaled) -> None:
        self.name, self.entry, self.scaled = entry.spec.name, entry, scaled
        self.wanted: Scale = None
        self.told: Running | None = None
        self.doomed: set[str] = set()
        """Pods that are about to end."""
        self.sparing: asyncio.TimerHandle | None = None
        self.reached: dict[str, str] = {}
        """Pods by address that people are sent to."""
        self.dials: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.blind = False
        """Whether dials from here are not answered, so that Kubernetes is believed."""
        self.selector: str | None = None
        """Of the Service, where the target has none; asked for once in each wake."""
        self.began_at = 0.0
        """When the latest wake began, in seconds since the epoch."""
        self.awaited_ticks = 0.0
        """Since when its pods are awaited, by a clock that nobody sets."""
        self.past: frozenset[str] = frozenset()
        """Pods of a wake that was given up: they are ending too, though they never were endpoints."""
        self.milestones: dict[str, float] = {}

    @property
    def is_waking(self) -> bool:
        return isinstance(self.wanted, AtLeast)

    def begin(self, at: float) -> None:
        """A wake begins."""
        self.began_at, self.milestones, self.selector = at, {}, None

    def doom(self, offers: Sequence[Offer]) -> set[str]:
        """These are about to end; those of them of which that was not known."""
        added = {offer.pod for offer in offers} - self.doomed
        self.doomed |= added
        self.unspare()
        return added

    def shown(self, offers: Sequence[Offer]) -> list[Offer]:
        """Those that somebody may be sent to."""
        seen = self.scaled.seen
        if self.doomed:
            self.doomed &= {offer.pod for offer in offers}
        if seen is not None and not seen.replicas:
            self.doom(offers)
            return []
        if isinstance(self.wanted, Zero) or self.scaled.in_doubt:
            return []
        return [offer for offer in offers if offer.pod not in self.doomed]

    def spare_later(self, offers: Sequence[Offer], then: Callable[[], None]) -> None:
        """Whoever is still ready in some seconds was not meant."""
        seen, unsure = self.scaled.seen, self.scaled.in_doubt or isinstance(self.wanted, Zero)
        if not self.doomed or self.sparing is not None or unsure or (seen is not None and not seen.replicas):
            return
        if any(offer.pod in self.doomed and not offer.ending for offer in offers):
            self.sparing = asyncio.get_running_loop().call_later(SPARED_SECONDS, then)

    def spare(self, offers: Sequence[Offer]) -> None:
        self.sparing = None
        self.doomed -= {offer.pod for offer in offers if not offer.ending}

    def unspare(self) -> None:
        if self.sparing is not None:
            self.sparing.cancel()
            self.sparing = None

    def reach(self, pods: Sequence[Pod], now: float) -> None:
        """Note how far the pods have got; what comes late is as if it had come with what follows it."""
        live = [pod for pod in pods if pod.metadata.deletion_timestamp is None and pod.metadata.uid not in self.doomed]
        if self.scaled.woken_at is not None and self.scaled.woken_at >= self.began_at:
            self.milestones.setdefault("scale", self.scaled.woken_at)
        for name, has in (("scheduled", _is_scheduled), ("running", _runs), ("ready", _is_ready)):
            if name not in self.milestones and any(has(pod) for pod in live):
                self.milestones[name] = now

    def arrive(self, now: float) -> None:
        """An endpoint can be reached: there is no milestone after this."""
        if self.scaled.woken_at is not None and self.scaled.woken_at >= self.began_at:
            self.milestones.setdefault("scale", self.scaled.woken_at)
        self.milestones.setdefault("ready", now)

    def close(self) -> None:
        self.unspare()
        for dial in self.dials.values():
            dial.cancel()


def ordered(milestones: dict[str, float]) -> dict[str, float]:
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
