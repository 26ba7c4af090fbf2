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
        "ServiceNotFound": "The Service is not there, or no longer.",
        "ServiceUnusable": "The Service has no selector, or is an ExternalName: which pods are its own is not known.",
        "PortNotFound": "The Service has no such port, or no TCP port at all.",
        "PortAmbiguous": "The Service has several ports, and none is named as the one.",
        "ListenMissing": "A tcp service has to be given a port of the proxy.",
        "ListenNotUsed": "A port of the proxy is given to a service that is not tcp.",
        "HostsNotUsed": "Hosts are given to a tcp service.",
        "IdleByUnknown": "What counts as use cannot be told of this protocol.",
        "IgnoreNotUsed": "Paths, user agents or an answer are given for a tcp or tls service, which has none.",
        "BadSpec": "A value that the API server should have refused: the CRD is older than the reconciler.",
        "HostTaken": "A host leads to an older ScaledService; what hosts are left lead here.",
        "HostNotAllowed": "A host belongs to another namespace, or the cluster's policy does not give it to this one.",
        "ListenTaken": "The port is that of an older ScaledService.",
        "ListenReserved": "The port is one of the proxy's own.",
        "ListenNotAllowed": "The cluster's policy does not give the port to this namespace.",
        "RejectedByEnvoy": "Envoy rejects a part of it; what Envoy accepted last of it stays in force.",
        "BadAnnotation": "An annotation of the Service cannot be read; the last good ones stay in force.",
        "BadLabel": "The label of the Service is neither true nor false. An Event only.",
        "NameTaken": "The Service is labelled, and a person made a ScaledService of its name. An Event only.",
        "BadCommand": "The annotation of a command cannot be read. An Event only.",
        "Refused": "The API server refused the ScaledService that was made of the annotations.",
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
