"""Built-in Kubernetes objects, with the fields that zenvoy uses. Pure.

Decoding skips fields that are not declared. Times are aware datetimes, except those of a Lease: they are text.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

import msgspec

from reconciler.kubernetes.types.objects import Condition, ObjectMeta, ObjectRef, Struct, companion_name

SERVICES, SLICES = ("v1", "services"), ("discovery.k8s.io/v1", "endpointslices")
"""The apiVersion and the plural of Services and of EndpointSlices."""
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""Label of an EndpointSlice with the name of its Service."""
SLICE_MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
"""Label of an EndpointSlice with the controller that writes it."""
SLICE_MANAGER = "zenvoy.dev"
"""Its value in the EndpointSlices that zenvoy writes."""
CAPTURE_LABEL = "zenvoy.dev/captured-service"
"""Label of a companion and of EndpointSlices with the name of the captured Service."""
CAPTURED = "zenvoy.dev/captured"
"""A key in the selector of a captured Service. No pod has it, so Kubernetes publishes no endpoint of the Service."""


class ServicePort(Struct, frozen=True):
    """A port of a Service. EndpointSlices have the `targetPort` as their port, under this port's name."""

    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    app_protocol: str = ""
    target_port: int | str | None = None


class ServiceSpec(Struct, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = msgspec.field(default_factory=dict)
    ip_families: tuple[str, ...] = msgspec.field(default=(), name="ipFamilies")
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = "Cluster"
    session_affinity: str = "None"
    publish_not_ready_addresses: bool = False


class Service(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()

    @property
    def pod_selector(self) -> dict[str, str]:
        """The labels of its pods, without the key by which zenvoy keeps them out of its endpoints."""
        return {key: value for key, value in self.spec.selector.items() if key != CAPTURED}

    @property
    def is_captured(self) -> bool:
        """True if its selector has that key."""
        return CAPTURED in self.spec.selector

    @property
    def captured(self) -> str:
        """`namespace/name` of the captured Service if this is its companion; empty otherwise."""
        name = self.metadata.labels.get(CAPTURE_LABEL, "")
        is_companion = bool(name) and self.metadata.name == companion_name(name)
        return f"{self.metadata.namespace}/{name}" if is_companion else ""


class EndpointConditions(Struct, frozen=True):
    """Conditions of an endpoint. None means unknown: `ready` and `serving` count as true, `terminating` as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None

    @property
    def is_ready(self) -> bool:
        """True if the endpoint gets connections, or that is unknown."""
        return self.ready is not False


class Endpoint(Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectRef | None = None
    node_name: str = ""
    zone: str = ""


def canonical(address: str) -> str:
    """Return an IP address in its canonical form, and any other text unchanged."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


class EndpointPort(Struct, frozen=True):
    """A port of an EndpointSlice; `name` is the name of the Service's port."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSlice(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()

    @property
    def service(self) -> str:
        """`namespace/name` of its Service, for a companion that of the captured one; empty if it has none."""
        labels = self.metadata.labels
        name = labels[CAPTURE_LABEL] if self.is_companion else labels.get(SERVICE_NAME_LABEL, "")
        return f"{self.metadata.namespace}/{name}" if name else ""

    @property
    def has_proxies(self) -> bool:
        """True if zenvoy wrote it: its endpoints are proxies, and not pods of the Service."""
        return self.metadata.labels.get(SLICE_MANAGER_LABEL) == SLICE_MANAGER

    @property
    def is_companion(self) -> bool:
        """True if Kubernetes wrote it for the companion of a captured Service, whose labels it copies.

        A Service of another name may have the label too.
        """
        labels = self.metadata.labels
        captured = labels.get(CAPTURE_LABEL)
        return captured is not None and labels.get(SERVICE_NAME_LABEL) == companion_name(captured)


class Waiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(Struct, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None


class Started(Struct, frozen=True):
    """The state of a container that has started and not ended."""


class ContainerState(Struct, frozen=True):
    """The state of a container; at most one field is set."""

    waiting: Waiting | None = None
    running: Started | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True):
    name: str = ""
    image: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class HttpHeader(Struct, frozen=True):
    name: str = ""
    value: str = ""


class HttpGet(Struct, frozen=True):
    """`httpGet` of a probe; `host` is empty for the pod itself."""

    path: str = ""
    port: int | str = 0
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(Struct, frozen=True):
    """`tcpSocket` of a probe; `host` is empty for the pod itself."""

    port: int | str = 0
    host: str = ""


class GrpcAction(Struct, frozen=True):
    """`grpc` of a probe."""

    port: int = 0
    service: str | None = None


class Probe(Struct, frozen=True):
    """A probe. None of these actions is set for an `exec` probe."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    grpc: GrpcAction | None = None
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1


class ContainerPort(Struct, frozen=True):
    name: str = ""
    container_port: int = 0


class PodContainer(Struct, frozen=True):
    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    restart_policy: str = ""
    """`Always` for an init container that is a sidecar."""


class ReadinessGate(Struct, frozen=True):
    condition_type: str = ""


class PodSpec(Struct, frozen=True):
    node_name: str = ""
    """Empty until the pod is scheduled."""
    scheduler_name: str = ""
    host_network: bool = False
    init_containers: tuple[PodContainer, ...] = ()
    containers: tuple[PodContainer, ...] = ()
    readiness_gates: tuple[ReadinessGate, ...] = ()


class PodIP(Struct, frozen=True):
    ip: str = ""


class PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    start_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_ready(self) -> bool:
        """True if Kubernetes calls it ready."""
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)


class ScaleSpec(Struct, frozen=True):
    """`spec` of a Scale. The API server leaves `replicas` out if it is zero."""

    replicas: int = 0


class ScaleStatus(Struct, frozen=True):
    replicas: int = 0
    selector: str = ""


class Scale(Struct, frozen=True):
    """The scale subresource of any kind."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


class EventSeries(Struct, frozen=True):
    """Repetitions of an Event, including the first occurrence."""

    count: int = 0
    last_observed_time: datetime | None = None


class EventObject(Struct, frozen=True):
    """An Event of core/v1. Newer writers set `eventTime` and `series` and leave the other times out."""

    metadata: ObjectMeta = ObjectMeta()
    involved_object: ObjectRef = ObjectRef()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int = 0
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: EventSeries | None = None

    @property
    def last_seen(self) -> datetime | None:
        """Time of the last occurrence, or None if it is unknown."""
        repeated = self.series.last_observed_time if self.series else None
        times = (repeated, self.last_timestamp, self.event_time, self.first_timestamp)
        return max((time for time in times if time), default=None)

    @property
    def first_seen(self) -> datetime | None:
        """Time of the first occurrence, or None if it is unknown."""
        return min((time for time in (self.first_timestamp, self.event_time) if time), default=self.last_timestamp)

    @property
    def times(self) -> int:
        """Number of occurrences."""
        return max(self.series.count if self.series else 0, self.count, 1)


class LeaseSpec(Struct, frozen=True):
    """`spec` of a Lease. Its times come from another machine's clock: they are compared for change only."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()
