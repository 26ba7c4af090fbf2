"""The probes of a pod that zenvoy can run itself, and their results. Pure.

Kubernetes decides alone where a probe runs a command or has a `host`, where a pod has readiness gates, and where a pod
uses the network of its node: its address is then not its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.kubernetes.types.builtin import ContainerStatus, HttpGet, Pod, PodContainer, Probe

MAX_PORT = 65535
SCHEMES = ("HTTP", "HTTPS")


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


@dataclass(frozen=True, slots=True)
class ContainerChecks:
    """The checks of one container; None passes."""

    startup: Check | None
    readiness: Check | None
    successes: int
    """Number of successes of `readiness` in a row."""


@dataclass(frozen=True, slots=True)
class PodChecks:
    """The checks of a pod, all of which must pass."""

    ip: str
    """The pod's own address."""
    containers: tuple[ContainerChecks, ...]


def pod_checks(pod: Pod) -> PodChecks | None:
    """Return the checks of a running pod; None if it is not running, or if only Kubernetes can decide."""
    spec, status = pod.spec, pod.status
    if pod.metadata.deletion_timestamp or spec.host_network or spec.readiness_gates or not status.pod_ip:
        return None
    seen = {one.name: one for one in (*status.init_container_statuses, *status.container_statuses)}
    found = []
    for container in (*(one for one in spec.init_containers if one.restart_policy == "Always"), *spec.containers):
        checks = _container_checks(container, seen.get(container.name, ContainerStatus()))
        if checks is None:
            return None
        found.append(checks)
    return PodChecks(status.pod_ip, tuple(found)) if found else None


def _container_checks(container: PodContainer, status: ContainerStatus) -> ContainerChecks | None:
    if not status.state.running:
        return None
    if status.ready:
        return ContainerChecks(None, None, 1)
    startup, readiness = None if status.started else container.startup_probe, container.readiness_probe
    first = _check(startup, container) if startup else None
    then = _check(readiness, container) if readiness else None
    if (startup and not first) or (readiness and not then):
        return None
    return ContainerChecks(first, then, max(1, readiness.success_threshold) if readiness else 1)


def _check(probe: Probe, container: PodContainer) -> Check | None:
    seconds = float(max(1, probe.timeout_seconds))
    if probe.http_get:
        return _http_check(probe.http_get, container, seconds)
    if probe.tcp_socket:
        port = None if probe.tcp_socket.host else _port(probe.tcp_socket.port, container)
        return TcpCheck(port, seconds) if port else None
    if probe.grpc:
        port = _port(probe.grpc.port, container)
        return GrpcCheck(port, seconds, probe.grpc.service or "") if port else None
    return None


def _http_check(get: HttpGet, container: PodContainer, seconds: float) -> HttpCheck | None:
    port = _port(get.port, container)
    if not port or get.host or get.scheme not in SCHEMES:
        return None
    headers = tuple((header.name, header.value) for header in get.http_headers)
    return HttpCheck(port, seconds, get.path, headers, get.scheme == "HTTPS")


def _port(said: int | str, container: PodContainer) -> int | None:
    if isinstance(said, str):
        said = next((port.container_port for port in container.ports if port.name == said), 0)
    return said if 0 < said <= MAX_PORT else None


class PodReadiness:
    """The results of a pod's checks, in rounds in which each container has one check."""

    __slots__ = ("_checks", "_started", "_successes")

    def __init__(self, checks: PodChecks) -> None:
        self._checks = checks.containers
        self._started = [one.startup is None for one in self._checks]
        self._successes = [0] * len(self._checks)

    @property
    def is_ready(self) -> bool:
        """True if all containers are ready after the latest round."""
        return all(self._started) and all(
            one.readiness is None or passed >= one.successes
            for one, passed in zip(self._checks, self._successes, strict=True)
        )

    def due(self) -> Iterator[tuple[int, Check]]:
        """Yield the checks of the next round, with the positions of their containers."""
        for at, one in enumerate(self._checks):
            check = one.readiness if self._started[at] else one.startup
            if check:
                yield at, check

    def record(self, results: Sequence[tuple[int, bool]]) -> bool:
        """Record the results of a round, and return whether all checks of it passed."""
        for at, passed in results:
            if self._started[at]:
                self._successes[at] = self._successes[at] + 1 if passed else 0
            else:
                self._started[at] = passed
        return all(passed for _, passed in results)
