"""What a ScaledService comes to, read beside its Service; or what is wrong with it. Plain immutable values."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.adapters.kubernetes.targets import Target
from reconciler.adapters.kubernetes.workloads import ServicePort
from reconciler.core.spec import Spec

SCALED_SERVICE, SERVICE = "ScaledService", "Service"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake of a person; `str()` is the line for people."""

    reason: str
    """In one word of CamelCase, as in `PortNotFound`."""
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


@dataclass(frozen=True, slots=True)
class Entry:
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
    command: str | None = None
    """The newest command, as the annotation says it."""

    @property
    def service_key(self) -> str:
        """`namespace/name` of the Service."""
        return f"{self.target.namespace}/{self.service}"
