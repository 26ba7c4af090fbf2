"""What a ScaledService comes to, read beside its Service; or what is wrong with it. Plain immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reconciler.core.spec import Spec
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.target import Target

SCALED_SERVICE, SERVICE = "ScaledService", "Service"
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "ServiceNotFound": "The Service does not exist.",
        "ServiceUnusable": "The Service has no selector or is an ExternalName, so its pods are unknown.",
        "PortNotFound": "The Service has no such TCP port.",
        "PortAmbiguous": "The Service has several ports, and none is chosen.",
        "ListenMissing": "A tcp service needs a port of the proxy.",
        "ListenNotUsed": "The service has a port of the proxy, but is not tcp.",
        "HostsNotUsed": "A tcp service has hosts.",
        "IdleByUnknown": "idle.by is not available for this protocol.",
        "IgnoreNotUsed": "A tcp or tls service has ignore rules with paths, user agents, or an answer.",
        "BadSpec": "The API server should have refused a value in the spec: the CRD is older than the reconciler.",
        "HostTaken": "An older ScaledService has a host; the remaining hosts lead to this one.",
        "HostNotAllowed": "A host belongs to another namespace, or hostPolicy does not allow it.",
        "ListenTaken": "An older ScaledService has the port.",
        "ListenReserved": "The proxy uses the port itself.",
        "ListenNotAllowed": "hostPolicy does not allow the port for this namespace.",
        "RejectedByEnvoy": "Envoy rejects a part of the service; the version that it accepted last stays in force.",
        "BadAnnotation": "An annotation of the Service is invalid; the last valid ones stay in force.",
        "BadLabel": "The label of the Service is neither true nor false. Only an Event.",
        "NameTaken": "The Service is labeled, but a ScaledService with its name was created by hand. Only an Event.",
        "BadCommand": "The annotation of a command is invalid. Only an Event.",
        "Refused": "The API server refused the ScaledService that zenvoy created from the annotations.",
    }
)
"""Of problems, with what they mean."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of a person; `str()` is the line for people."""

    reason: str
    """One of `REASONS`."""
    where: str
    """The field or annotation, as in `spec.port`."""
    what: str
    right: str
    """What would be right."""
    on: str = SCALED_SERVICE
    """The kind of the object, of the same namespace and name, that has the mistake in it."""
    harmless: bool = False
    """Whether the ScaledService of that name is as its owner wants it nonetheless."""

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what}; {self.right}".split())


def rejected_by_envoy(message: str) -> Problem:
    """Return the problem of a service that Envoy rejects a part of; `message` is Envoy's, or says why it would."""
    right = "change the spec; what Envoy accepted last of it stays in force, and other services are not affected"
    return Problem("RejectedByEnvoy", "spec", f"Envoy rejects a part of it: {message}", right)


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
    """Of the object that this was made of, which is not the newest one while that has mistakes."""

    @property
    def service_key(self) -> str:
        """`namespace/name` of the Service."""
        return f"{self.target.namespace}/{self.service}"
