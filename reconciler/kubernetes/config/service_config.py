"""The configuration that results from a ScaledService and its Service. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Protocol, Spec
from reconciler.kubernetes.config.capture import NO_CAPTURE, Capture
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.types.scaled_service import BusyCheck

SCALED_SERVICE, SERVICE = "ScaledService", "Service"


def rejected_by_envoy(message: str) -> Problem:
    """Return the problem of a service of which Envoy rejects a part; `message` is the reason."""
    right = "change the spec; what Envoy accepted last of it stays in force, and other services are not affected"
    return Problem(Reason.REJECTED_BY_ENVOY, "spec", f"Envoy rejects a part of it: {message}", right)


class Readiness(StrEnum):
    """The first to call a pod of a waking service ready; the first value is the default."""

    PROBES = "probes"
    """zenvoy, which runs the pod's own probes."""
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """One ScaledService that is in force."""

    spec: Spec
    target: Target
    service: str
    """The Service's name, in the target's namespace."""
    port: ServicePort
    """The Service's port; EndpointSlices' ports are matched to its name."""
    created: float
    """Seconds since the epoch."""
    uid: str
    generation: int
    """Generation of the object that this was made from: an older one while the newest has problems."""
    readiness: Readiness = Readiness.PROBES
    busy: BusyCheck | None = None
    """The busy check; None: the service is not asked."""
    has_service: bool = True
    """False if the Service was deleted since."""
    capture: Capture = NO_CAPTURE

    @property
    def service_key(self) -> str:
        """`namespace/name` of the Service."""
        return f"{self.target.namespace}/{self.service}"

    @property
    def awaits_port(self) -> bool:
        """True if nothing leads to it before its Service has a port of the proxy."""
        return self.capture.is_due and self.spec.protocol is Protocol.TCP and self.spec.listen is None
