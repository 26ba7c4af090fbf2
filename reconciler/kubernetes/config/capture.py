"""Capture of a Service: the Services that can be captured, and the names of zenvoy's objects for them. Pure.

Counterpart: `reconciler/kubernetes/capture`, which does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.reasons import Problem, Reason
from reconciler.core.validation import Notation
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import companion_name
from reconciler.kubernetes.types.scaled_service import PREFIX, ScaledService

HEADLESS, IPV4 = "None", "IPv4"
TURN_OFF = f"set capture: none, on a labeled Service the annotation {PREFIX}capture: none"
"""The remedy for a Service that is not to be captured."""


class CaptureMode(StrEnum):
    """The endpoints of a Service for its callers; the first value is the default."""

    NONE = "none"
    """Its pods."""
    PROXY = "proxy"
    """The proxy, whether the service is awake or asleep."""


@dataclass(frozen=True, slots=True)
class Capture:
    """The wish to capture a Service, and its port."""

    wanted: bool = False
    problem: Problem | None = None
    """The reason why a wanted capture is not possible."""
    port: int = 0
    """The assigned port of the proxy, which it keeps until its callers reach the pods again; 0 if none is assigned."""

    @property
    def is_due(self) -> bool:
        """True if it is wanted and possible."""
        return self.wanted and self.problem is None


NO_CAPTURE = Capture()


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """The capture in the status of a ScaledService; an empty reason: no capture is wanted."""

    is_captured: bool = False
    reason: str = ""
    message: str = ""
    port: int = 0
    """The assigned port of the proxy; 0 if none is."""


def capture_of(item: ScaledService, service: Service | None, ports: range, names: Notation) -> Capture:
    """Return whether the Service of a ScaledService is to be captured; `ports` are those of the installation."""
    port = item.status.capture_port if item.status.capture_port in ports else 0
    if item.spec.capture != CaptureMode.PROXY or service is None:
        return Capture(port=port) if port else NO_CAPTURE
    place = names.place("capture")
    if not ports:
        what, remedy = "this installation of zenvoy captures no Service", "install the chart with capture.enabled=true"
        return Capture(True, Problem(Reason.CAPTURE_DISABLED, place, what, remedy))
    for what, remedy in _obstacles(service):
        message = f"Service {service.metadata.key} {what}"
        return Capture(True, Problem(Reason.CAPTURE_NOT_POSSIBLE, place, message, f"{remedy}, or {TURN_OFF}"), port)
    return Capture(True, port=port)


def companion_of(service: str) -> str:
    """Return the `namespace/name` of the Service that selects the pods of a captured Service."""
    namespace, _, name = service.partition("/")
    return f"{namespace}/{companion_name(name)}"


def _obstacles(service: Service) -> Iterator[tuple[str, str]]:
    """Return why a Service cannot be captured, each with a remedy in addition to `TURN_OFF`."""
    spec = service.spec
    if spec.type == "ExternalName" or not service.pod_selector:
        yield "has no selector, so its pods are not known", "add a selector"
    if spec.cluster_ip == HEADLESS:
        yield "is headless: clients connect to the pods' own ports", "give it a cluster IP"
    if any(family != IPV4 for family in spec.ip_families):
        yield "has IPv6 addresses, which are not supported", "use ipFamilies [IPv4]"
    if len(spec.ports) != 1:
        yield f"has {len(spec.ports)} ports", "move all but one to another Service"
    elif spec.ports[0].protocol != "TCP":
        yield f"has a {spec.ports[0].protocol} port", "use a TCP port"
    if spec.session_affinity != "None":
        yield f"has sessionAffinity {spec.session_affinity}, which the proxy does not keep", "remove it"
    for field, policy in (("internal", spec.internal_traffic_policy), ("external", spec.external_traffic_policy)):
        if policy == "Local":
            yield f"has {field}TrafficPolicy Local, and not every node has a proxy", "use Cluster"
