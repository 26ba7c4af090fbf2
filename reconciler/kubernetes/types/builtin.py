"""The objects of others, with only the fields that are used. Counterpart: `scaled_service.py`, which says the rules.

Times are aware datetimes; those of a Lease stay text, which is only compared.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address

import msgspec

from reconciler.kubernetes.types.objects import Condition, ObjectMeta, ObjectRef, Struct

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""


class ServicePort(Struct, frozen=True):
    """`targetPort` is what the EndpointSlices' ports say; their names are this port's name."""

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


class Service(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(Struct, frozen=True):
    """None is what the API calls unknown: `ready` and `serving` then count as true, `terminating` as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Struct, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectRef | None = None
    node_name: str = ""


def canonical(address: str) -> str:
    """Return an IP address in the one form in which addresses are compared; other text as it is."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


class EndpointPort(Struct, frozen=True):
    """`name` is the Service port's."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"


class EndpointSlice(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()

    @property
    def service(self) -> str:
        """`namespace/name` of the Service that it belongs to; empty when of none."""
        name = self.metadata.labels.get(SERVICE_NAME_LABEL, "")
        return f"{self.metadata.namespace}/{name}" if name else ""


class Waiting(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(Struct, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Started(Struct, frozen=True):
    started_at: datetime | None = None


class ContainerState(Struct, frozen=True):
    """At most one of them is set."""

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


class PodSpec(Struct, frozen=True):
    node_name: str = ""
    """Empty until it is scheduled."""
    scheduler_name: str = ""


class PodStatus(Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    start_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ScaleSpec(Struct, frozen=True):
    """At zero the API server leaves `replicas` out."""

    replicas: int = 0


class ScaleStatus(Struct, frozen=True):
    replicas: int = 0
    selector: str = ""


class Scale(Struct, frozen=True):
    """The scale subresource of anything."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


class WorkloadSpec(Struct, frozen=True):
    """`replicas` is None where it is left out: then it is the kind's default, which is 1 for those of `apps`."""

    replicas: int | None = None


class WorkloadStatus(Struct, frozen=True):
    replicas: int | None = None
    ready_replicas: int | None = None
    observed_generation: int | None = None
    conditions: tuple[Condition, ...] | None = ()


class Workload(Struct, frozen=True):
    """A Deployment, a StatefulSet, a ReplicaSet, or whatever looks like one."""

    metadata: ObjectMeta = ObjectMeta()
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


class EventSeries(Struct, frozen=True):
    """How often an Event was repeated, its first time included."""

    count: int = 0
    last_observed_time: datetime | None = None


class EventObject(Struct, frozen=True):
    """An Event of core/v1, as it is read; newer writers set `eventTime` and `series` and leave the others out."""

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
        """When it happened last; None when nobody says."""
        repeated = self.series.last_observed_time if self.series else None
        times = (repeated, self.last_timestamp, self.event_time, self.first_timestamp)
        return max((time for time in times if time), default=None)

    @property
    def first_seen(self) -> datetime | None:
        """When it happened first; None when nobody says."""
        return min((time for time in (self.first_timestamp, self.event_time) if time), default=self.last_timestamp)

    @property
    def times(self) -> int:
        """How often it happened."""
        return max(self.series.count if self.series else 0, self.count, 1)


class LeaseSpec(Struct, frozen=True):
    """Times are compared, and never read as a time: they are another machine's."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()
