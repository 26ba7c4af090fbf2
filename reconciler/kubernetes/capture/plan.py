"""The next step of a capture, from what is observed. Pure.

Both directions make before they break. To capture: the pods appear in the endpoints of the companion, the proxies in
those of the Service, and only then the pods leave the Service. To release: the pods return first. Each step is
level-triggered, so a step that was lost, or undone by another program, is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.kubernetes.capture.objects import Body


class Action(StrEnum):
    """A change of one object."""

    WRITE_COMPANION = "write the companion Service"
    WRITE_SLICES = "write the EndpointSlices of the proxies"
    HIDE_PODS = "take the pods out of the Service"
    SHOW_PODS = "give the pods back to the Service"
    DELETE_SLICES = "delete the EndpointSlices of the proxies"
    DELETE_COMPANION = "delete the companion Service"

    @property
    def breaks(self) -> bool:
        """True if callers lose endpoints by it, or zenvoy does."""
        return self in (Action.HIDE_PODS, Action.DELETE_SLICES, Action.DELETE_COMPANION)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until something else changes."""

    reason: str
    """For people."""


@dataclass(frozen=True, slots=True)
class CaptureObjects:
    """The observed state of a Service, and zenvoy's own objects for it."""

    is_hidden: bool
    """True if its selector keeps its pods out of its endpoints."""
    pods: frozenset[str] = frozenset()
    """Addresses of ready pods in the endpoints of the Service."""
    companion_pods: frozenset[str] = frozenset()
    """Addresses of ready pods in those of the companion."""
    companion: Body | None = None
    """The parts of the companion that zenvoy wrote; None if it does not exist."""
    slices: Mapping[str, Body] | None = None
    """zenvoy's own EndpointSlices, by name; None if there are none."""

    @property
    def keeps_pods(self) -> bool:
        """True if the selector keeps ready pods from callers."""
        return self.is_hidden and bool(self.companion_pods)

    @property
    def is_closed(self) -> bool:
        """True if new connections to the Service cannot reach its pods without the proxy."""
        return self.is_hidden and not self.pods


@dataclass(frozen=True, slots=True)
class RequiredObjects:
    """The objects of a captured Service."""

    companion: Body
    slices: Mapping[str, Body]
    has_proxy: bool
    """True if a proxy is ready for connections."""


def next_to_capture(seen: CaptureObjects, required: RequiredObjects) -> Action | Wait | None:
    """Return the next step; None if every new connection to the Service reaches a proxy."""
    if seen.companion != required.companion:
        return Action.WRITE_COMPANION
    if not required.has_proxy:
        if seen.keeps_pods:
            return Action.SHOW_PODS
        is_outdated = seen.slices is not None and seen.slices != required.slices
        return Action.WRITE_SLICES if is_outdated else Wait("no proxy is ready for its connections")
    if not seen.is_hidden and not seen.pods <= seen.companion_pods:
        return Wait("Kubernetes has not listed its pods for the companion Service yet")
    if seen.slices != required.slices:
        return Action.WRITE_SLICES
    if not seen.is_hidden:
        return Action.HIDE_PODS
    if seen.pods:
        return Wait("Kubernetes has not taken its pods out of the Service yet")
    return None


def next_to_release(
    seen: CaptureObjects, may_wait: bool, required: RequiredObjects | None = None
) -> Action | Wait | None:
    """Return the next step; None if nothing of zenvoy is left.

    With `may_wait`, its pods are expected. Until they are ready, callers reach the proxies of `required`, if given.
    """
    if may_wait and _is_asleep(seen):
        is_outdated = required is not None and seen.slices != required.slices
        return Action.WRITE_SLICES if is_outdated else Wait("no pod is ready yet")
    if seen.is_hidden:
        return Action.SHOW_PODS
    if not seen.companion_pods <= seen.pods:
        return Wait("Kubernetes has not listed its pods for the Service yet")
    if seen.slices is not None:
        return Action.DELETE_SLICES
    return Action.DELETE_COMPANION if seen.companion is not None else None


def without_proxy(seen: CaptureObjects, reason: str) -> Action | Wait:
    """Give an awake Service back to its pods alone, until the proxies listen. One without pods can only wait."""
    if seen.keeps_pods:
        return Action.SHOW_PODS
    is_shown = not seen.is_hidden and seen.pods and seen.companion_pods <= seen.pods
    return Action.DELETE_SLICES if is_shown and seen.slices is not None else Wait(reason)


def _is_asleep(seen: CaptureObjects) -> bool:
    """Return whether only proxies serve callers. Without a companion, the pods of a hidden Service are unknown."""
    if seen.is_hidden:
        return seen.companion is not None and not seen.companion_pods
    return seen.slices is not None and not seen.pods and not seen.companion_pods
