"""The probes of a pod that zenvoy can run itself, and their results. Pure.

Kubernetes decides alone where a probe runs a command, has a `host`, or sends a long request, where a pod has readiness
gates, and where a pod uses the network of its node: its address is then not its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.validation import MAX_PORT
from reconciler.kubernetes.types.builtin import ContainerStatus, HttpGet, Pod, PodContainer, Probe

MAX_REQUEST_LENGTH = 8192
"""Characters that a probe may send. A longer one would cost time that the wakes of others need."""


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET that passes if the status is 2xx."""

    port: int
    timeout_seconds: float
    path: str
    headers: tuple[tuple[str, str], ...]
    tls: bool


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A dial that passes if it is accepted."""

    port: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """A call of gRPC's health service that passes if the answer is SERVING."""

    port: int
    timeout_seconds: float
    service: str


Check = HttpCheck | TcpCheck | GrpcCheck


@dataclass(slots=True)
class ContainerChecks:
    """The checks of one container, and their progress in rounds of one check each."""

    startup: Check | None
    """None if there is none, or once it has passed."""
    readiness: Check | None
    successes: int
    """Number of successes of `readiness` in a row that are needed."""
    passed: int = 0
    """Number of the latest successes of `readiness` in a row."""

    @property
    def due(self) -> Check | None:
        """The check of the next round, if there is one."""
        return self.startup or self.readiness

    @property
    def is_ready(self) -> bool:
        """True if the container is ready after the latest round."""
        return self.startup is None and (self.readiness is None or self.passed >= self.successes)

    def record(self, passed: bool) -> None:
        """Record the result of the check that was due."""
        if self.startup is None:
            self.passed = self.passed + 1 if passed else 0
        elif passed:
            self.startup = None


@dataclass(frozen=True, slots=True)
class PodChecks:
    """The checks of a pod, all of which must pass."""

    ip: str
    """The pod's own address."""
    containers: tuple[ContainerChecks, ...]
    restarts: tuple[int, ...]
    """Number of restarts of each container; the results of a check are those of one run of its container."""
    passed: bool
    """True if Kubernetes calls all containers ready; the EndpointSlice follows a moment later."""


def pod_checks(pod: Pod) -> PodChecks | None:
    """Return the checks of a running pod; None if it is not running, or if only Kubernetes can decide."""
    spec, status = pod.spec, pod.status
    if pod.metadata.deletion_timestamp or spec.host_network or spec.readiness_gates or not status.pod_ip:
        return None
    found, containers = [], lasting_containers(pod)
    for container, seen in containers:
        checks = _container_checks(container, seen)
        if checks is None:
            return None
        found.append(checks)
    restarts = tuple(seen.restart_count for _, seen in containers)
    passed = all(seen.ready for _, seen in containers)
    return PodChecks(status.pod_ip, tuple(found), restarts, passed) if found else None


def lasting_containers(pod: Pod) -> list[tuple[PodContainer, ContainerStatus]]:
    """Return the containers that run as long as the pod: its containers, and init containers that are sidecars."""
    seen = {one.name: one for one in (*pod.status.init_container_statuses, *pod.status.container_statuses)}
    sidecars = (one for one in pod.spec.init_containers if one.restart_policy == "Always")
    return [(one, seen.get(one.name, ContainerStatus())) for one in (*sidecars, *pod.spec.containers)]


def left_to_kubernetes(pod: Pod) -> str:
    """Return why Kubernetes alone decides about the running containers of a pod; empty if zenvoy can, too."""
    if pod.spec.host_network:
        return "the pod uses the network of its node"
    for container, status in lasting_containers(pod):
        if not status.state.running or status.ready:
            continue
        for kind, probe in zip(("startup", "readiness"), probes_due(container, status), strict=True):
            if probe and not _check(probe, container):
                is_command = not (probe.http_get or probe.tcp_socket or probe.grpc)
                does = "runs a command" if is_command else "is for the kubelet only"
                return f"the {kind} probe of container {container.name} {does}, every {probe.period_seconds} s"
    return ""


def _container_checks(container: PodContainer, status: ContainerStatus) -> ContainerChecks | None:
    if not status.state.running:
        return None
    if status.ready:
        return ContainerChecks(None, None, 1)
    startup, readiness = probes_due(container, status)
    first = _check(startup, container) if startup else None
    then = _check(readiness, container) if readiness else None
    if (startup and not first) or (readiness and not then):
        return None
    return ContainerChecks(first, then, max(1, readiness.success_threshold) if readiness else 1)


def probes_due(container: PodContainer, status: ContainerStatus) -> tuple[Probe | None, Probe | None]:
    """Return the startup and the readiness probe that a running container must still pass."""
    return None if status.started else container.startup_probe, container.readiness_probe


def _check(probe: Probe, container: PodContainer) -> Check | None:
    seconds = float(max(1, probe.timeout_seconds))
    if probe.http_get:
        return _http_check(probe.http_get, container, seconds)
    if probe.tcp_socket:
        port = None if probe.tcp_socket.host else _port(probe.tcp_socket.port, container)
        return TcpCheck(port, seconds) if port else None
    if probe.grpc:
        port = _port(probe.grpc.port, container)
        service = probe.grpc.service or ""
        return GrpcCheck(port, seconds, service) if port and len(service) <= MAX_REQUEST_LENGTH else None
    return None


def _http_check(get: HttpGet, container: PodContainer, seconds: float) -> HttpCheck | None:
    port = _port(get.port, container)
    if not port or get.host or get.scheme not in ("HTTP", "HTTPS"):
        return None
    headers = tuple((header.name, header.value) for header in get.http_headers)
    if len(get.path) + sum(len(name) + len(value) for name, value in headers) > MAX_REQUEST_LENGTH:
        return None
    return HttpCheck(port, seconds, get.path, headers, get.scheme == "HTTPS")


def _port(said: int | str, container: PodContainer) -> int | None:
    if isinstance(said, str):
        said = next((port.container_port for port in container.ports if port.name == said), 0)
    return said if 0 < said <= MAX_PORT else None
