"""The configuration that results from a ScaledService and its Service, and the reasons of its problems. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Protocol, Spec
from reconciler.kubernetes.config.capture import NO_CAPTURE, Capture
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.types.scaled_service import BusyCheck

SCALED_SERVICE, SERVICE = "ScaledService", "Service"
REASONS: Mapping[Reason, str] = {
    Reason.SERVICE_NOT_FOUND: "The Service does not exist.",
    Reason.SERVICE_UNUSABLE: "The Service has no selector or is an ExternalName, so its pods are unknown.",
    Reason.PORT_NOT_FOUND: "The Service has no such TCP port.",
    Reason.PORT_AMBIGUOUS: "The Service has several ports, and none is chosen.",
    Reason.LISTEN_MISSING: "A tcp service needs a port of the proxy.",
    Reason.LISTEN_NOT_USED: "A tls service, or one with capture, has a port of the proxy.",
    Reason.TRUSTED_HOPS_NOT_USED: "A service without an HTTP port of its own has http.trustedHops.",
    Reason.HOSTS_NOT_USED: "A tcp service has hosts.",
    Reason.IDLE_BY_UNKNOWN: "idle.by is not available for this protocol.",
    Reason.WAKE_BY_UNKNOWN: "wake.by is not available for this protocol.",
    Reason.IGNORE_NOT_USED: "A tcp or tls service has ignore rules with paths, user agents, or an answer.",
    Reason.BAD_SPEC: "The API server should have refused a value in the spec: the CRD is older than the reconciler.",
    Reason.HOST_TAKEN: "An older ScaledService has a host; the remaining hosts lead to this one.",
    Reason.HOST_NOT_ALLOWED: "A host belongs to another namespace, or hostPolicy does not allow it.",
    Reason.LISTEN_TAKEN: "An older ScaledService has the port. The hosts of an HTTP service still lead to it.",
    Reason.LISTEN_RESERVED: "The proxy uses the port itself.",
    Reason.LISTEN_NOT_ALLOWED: "hostPolicy does not allow the port for this namespace.",
    Reason.REJECTED_BY_ENVOY: "Envoy rejects a part of the service; the version that it accepted last stays in force.",
    Reason.BAD_ANNOTATION: "An annotation of the Service is invalid; the last valid ones stay in force.",
    Reason.BAD_LABEL: "The label of the Service is neither true nor false. Only an Event.",
    Reason.NAME_TAKEN: "The Service is labeled, but a ScaledService with its name was created by hand. Only an Event.",
    Reason.BAD_COMMAND: "The annotation of a command is invalid. Only an Event.",
    Reason.CAPTURE_DISABLED: "capture is requested, and the installation captures no Service. In Captured.",
    Reason.CAPTURE_NOT_POSSIBLE: "capture is requested for a Service that cannot be captured. In Captured.",
    Reason.CAPTURE_TAKEN: "An older ScaledService captures the same Service. In Captured.",
    Reason.REFUSED: "The API server refused the ScaledService that zenvoy created from the annotations.",
}
"""The reasons of problems, with their descriptions."""


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
