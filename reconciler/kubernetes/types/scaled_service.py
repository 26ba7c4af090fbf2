"""The ScaledService resource, with the fields that zenvoy uses. Pure.

Decoding skips fields that are not declared. A field that the API server leaves out has its zero value, or None where
zero has a meaning.
"""

from __future__ import annotations

from datetime import datetime

from reconciler.kubernetes.types.objects import Condition, ObjectMeta, Struct, path

GROUP = "zenvoy.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ScaledService"
PLURAL = "scaledservices"
PREFIX = f"{GROUP}/"
"""Prefix of zenvoy's labels, annotations, and finalizers."""
ENABLED_LABEL = f"{PREFIX}enabled"
MANAGED_LABEL = f"{PREFIX}managed"
"""Label of a ScaledService that was created from a Service's label and annotations."""
COMMAND_ANNOTATION = f"{PREFIX}command"
"""`<wake|sleep>@<RFC 3339>`; each value is executed once."""
BUSY_UNTIL_ANNOTATION = f"{PREFIX}busy-until"
"""The RFC 3339 time until which an application calls itself busy, on a ScaledService or on its Service."""
FINALIZER = f"{PREFIX}restore-replicas"
CAPTURED = "Captured"
"""The type of the condition, and its reason while the Service is captured."""


class TargetRef(Struct, frozen=True):
    """`spec.scaleTargetRef`; an empty field has its default."""

    api_version: str = ""
    kind: str = ""
    name: str = ""


class OwnHttp(Struct, frozen=True):
    """`spec.http`: settings of its own HTTP listener; None stands for those of all HTTP listeners."""

    trusted_hops: int | None = None


class TrafficUnit(Struct, frozen=True):
    """`spec.idle` and `spec.wake`: the traffic that counts."""

    by: str = ""


class BusyCheck(Struct, frozen=True):
    """`spec.busy`; the default port is the one of the Service."""

    http: str = ""
    port: int | None = None


class IgnoreAnswer(Struct, frozen=True):
    """The response to ignored requests while the service is asleep."""

    status: int = 200
    body: str = ""


class IgnoreRule(Struct, frozen=True):
    """An entry of `spec.ignore`; None means that a field is not set."""

    paths: tuple[str, ...] | None = None
    user_agents: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    answer: IgnoreAnswer | None = None


class ScaledServiceSpec(Struct, frozen=True):
    """`spec` as it is in the object: durations are text, and a field that is not set is None or empty."""

    service: str = ""
    scale_target_ref: TargetRef = TargetRef()
    port: int | str | None = None
    protocol: str = ""
    hosts: tuple[str, ...] = ()
    listen: int | None = None
    http: OwnHttp = OwnHttp()
    replicas: int | str | None = None
    idle_after: str | None = None
    wake_timeout: str | None = None
    hold_timeout: str | None = None
    drain_timeout: str | None = None
    max_held: int | None = None
    idle: TrafficUnit = TrafficUnit()
    wake: TrafficUnit = TrafficUnit()
    busy: BusyCheck | None = None
    ignore: tuple[IgnoreRule, ...] = ()
    readiness: str = ""
    capture: str = ""
    refusal_details: bool = False
    paused: bool = False


class ScaledServiceStatus(Struct, frozen=True):
    """`status`: the record and the conditions. `state` is empty until there is a record."""

    state: str = ""
    target: str = ""
    """The scaled object, as in `Deployment/web`."""
    since: datetime | None = None
    reason: str = ""
    replicas: int = 0
    hold_address: str = ""
    stalled: str | None = None
    zeroed: bool = False
    observed_generation: int = 0
    observed_command: str = ""
    capture_port: int = 0
    """The port of the proxy to which its Service leads; 0 if none is assigned."""
    conditions: tuple[Condition, ...] = ()


class ScaledService(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ScaledServiceSpec = ScaledServiceSpec()
    status: ScaledServiceStatus = ScaledServiceStatus()

    @property
    def is_captured(self) -> bool:
        """True if new connections to its Service reach a proxy, as its condition says."""
        return any((one.type, one.status) == (CAPTURED, "True") for one in self.status.conditions)


def item_path(meta: ObjectMeta, subresource: str | None = None) -> str:
    """Return the URL path of a ScaledService."""
    return path(API_VERSION, PLURAL, meta.namespace, meta.name, subresource)
