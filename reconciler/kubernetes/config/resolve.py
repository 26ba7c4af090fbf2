"""A ScaledService, read beside its Service: the spec and the target that it comes to, or all that is wrong with it.

Pure. The API server has checked what a schema can say (deploy/chart/crds); it is checked again where a wrong value
would do harm, as the schema may be older than this. What two of them may not share: `conflicts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import IdleBy, Protocol, Spec
from reconciler.core.text import join_words, parse_duration
from reconciler.kubernetes.config import ignore_rules, service_ports
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort
from reconciler.kubernetes.types.names import is_label
from reconciler.kubernetes.types.objects import LONGEST_SHOWN
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceSpec
from reconciler.kubernetes.types.target import Target

ANY_ADDRESS = "0.0.0.0"
LAST = "last"
DEFAULT_TARGET = ("apps/v1", "Deployment")
DURATIONS = {"idleAfter": "5m", "wakeTimeout": "2m", "holdTimeout": "60s", "drainTimeout": "30s"}
"""With their defaults, which the schema has too."""
IDLE_BY = {
    Protocol.HTTP: (IdleBy.REQUESTS, IdleBy.BYTES),
    Protocol.H2C: (IdleBy.REQUESTS, IdleBy.BYTES),
    Protocol.TCP: (IdleBy.CONNECTIONS, IdleBy.BYTES),
    Protocol.TLS: (IdleBy.CONNECTIONS, IdleBy.BYTES),
}
"""What can be counted of each protocol; the first is the default."""
_PROTOCOLS, _IDLE_BYS = frozenset(Protocol), frozenset(IdleBy)
LONGEST_SECONDS = 10 * 365 * 24 * 3600
LONGEST_NAME = 253
"""Of a service, with its namespace: Envoy would be told nothing at all while there is a longer one."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """What is the same for all services of a cluster."""

    listen_host: str = ANY_ADDRESS
    """Where Envoys listen for tcp services; IPv6 in brackets."""
    policy: HostPolicy = field(default_factory=HostPolicy)


def service_of(item: ScaledService) -> str:
    """`namespace/name` of the Service that it is about."""
    return f"{item.metadata.namespace}/{item.spec.service or item.metadata.name}"


def target_of(item: ScaledService) -> Target:
    """What it scales: the Deployment with the Service's name, where nothing is said."""
    said, (api_version, kind) = item.spec.scale_target_ref, DEFAULT_TARGET
    name = said.name or item.spec.service or item.metadata.name
    return Target(said.api_version or api_version, said.kind or kind, name, item.metadata.namespace)


def wake_timeout(item: ScaledService) -> float:
    """How long a wake of it may take, in seconds; the default where what it says is wrong."""
    said = _seconds(item.spec, "wakeTimeout")
    return said if isinstance(said, float) else parse_duration(DURATIONS["wakeTimeout"]) or 0.0


def host_names(service: str, namespace: str, policy: HostPolicy) -> tuple[str, ...]:
    """Return the names that a Service has within the cluster, with the bare one where the policy allows it."""
    inside = f"{service}.{namespace}"
    return inside, f"{inside}.svc", f"{inside}.svc.{policy.domain}", *((service,) if policy.bare_names else ())


def resolve(
    item: ScaledService, service: Service | None, cluster: ClusterConfig
) -> ServiceConfig | tuple[Problem, ...]:
    """What it comes to, or everything that is wrong; nothing is raised for a mistake."""
    port = _port(item, service)
    problems = [port] if isinstance(port, Problem) else []
    seconds = {name: _seconds(item.spec, name) for name in DURATIONS}
    problems += [found for found in seconds.values() if isinstance(found, Problem)]
    problems += [*_bad_name(item.metadata.key), *_bad_target(item), *_bad_values(item.spec)]
    if not isinstance(port, Problem):
        problems += _bad_for(_protocol(item.spec, port), item.spec, port)
    if problems or isinstance(port, Problem):
        return tuple(problems)
    times = [value for value in seconds.values() if not isinstance(value, Problem)]
    return _entry(item, port, times, cluster)


def _entry(item: ScaledService, port: ServicePort, times: list[float], cluster: ClusterConfig) -> ServiceConfig:
    meta, said = item.metadata, item.spec
    protocol, service = _protocol(said, port), service_of(item).partition("/")[2]
    own = () if protocol is Protocol.TCP else host_names(service, meta.namespace, cluster.policy)
    spec = Spec(
        name=meta.key,
        protocol=protocol,
        hosts=tuple(dict.fromkeys((*own, *said.hosts))),
        listen=f"{cluster.listen_host}:{said.listen}" if protocol is Protocol.TCP else None,
        replicas=said.replicas if isinstance(said.replicas, int) else None,
        idle_after=times[0],
        wake_timeout=times[1],
        hold_timeout=times[2],
        drain_timeout=times[3],
        max_held=said.max_held if said.max_held is not None else Spec(name="").max_held,
        idle_by=IdleBy(said.idle.by) if said.idle.by else IDLE_BY[protocol][0],
        ignore=ignore_rules.rules(said.ignore),
        refusal_details=said.refusal_details,
        paused=said.paused,
    )
    created = meta.creation_timestamp.timestamp() if meta.creation_timestamp else 0.0
    return ServiceConfig(spec, target_of(item), service, port, created, meta.uid, meta.generation)


def _port(item: ScaledService, service: Service | None) -> ServicePort | Problem:
    where, name = "spec.service", service_of(item)
    if service is None:
        return Problem(
            Reason.SERVICE_NOT_FOUND, where, f"there is no Service {name}", "create it, or name the one that there is"
        )
    if service.spec.type == "ExternalName":
        what = f"Service {name} is an ExternalName, which has no pods"
        return Problem(Reason.SERVICE_UNUSABLE, where, what, "name a Service with a selector")
    if not service.spec.selector:
        what = f"Service {name} has no selector, so no pods are known to be its own"
        return Problem(Reason.SERVICE_UNUSABLE, where, what, "give it one, or name a Service that has one")
    return service_ports.select_port(service, item.spec.port)


def _protocol(said: ScaledServiceSpec, port: ServicePort) -> Protocol:
    if said.protocol in _PROTOCOLS:
        return Protocol(said.protocol)
    return service_ports.protocol_of(port) or (Protocol.TCP if said.listen is not None else Protocol.HTTP)


def _seconds(said: ScaledServiceSpec, name: str) -> float | Problem:
    given = {
        "idleAfter": said.idle_after,
        "wakeTimeout": said.wake_timeout,
        "holdTimeout": said.hold_timeout,
        "drainTimeout": said.drain_timeout,
    }[name]
    seconds = parse_duration(DURATIONS[name] if given is None else given)
    if seconds is None:
        return Problem(Reason.BAD_SPEC, f"spec.{name}", f"{given!r} is not a duration", "write it as 5m, 30s or 1h30m")
    if not 0.001 <= seconds <= LONGEST_SECONDS:
        right = f"at least 1ms and at most {LONGEST_SECONDS // 3600}h"
        return Problem(Reason.BAD_SPEC, f"spec.{name}", f"{given} is out of range", right)
    return seconds


def _bad_name(key: str) -> Iterator[Problem]:
    if len(key) > LONGEST_NAME:
        what = f"with its namespace and a slash it has {len(key)} characters, of which there can be {LONGEST_NAME}"
        yield Problem(
            Reason.BAD_SPEC, "metadata.name", what, "give it a shorter name, and the Service's as spec.service"
        )


def _bad_target(item: ScaledService) -> Iterator[Problem]:
    """What could lead to another object: a name that is none becomes part of a URL."""
    if item.spec.service and not is_label(item.spec.service):
        what = f"{item.spec.service[:LONGEST_SHOWN]!r} is not a Service's name"
        yield Problem(Reason.BAD_SPEC, "spec.service", what, "write one such as web: at most 63 of a-z, 0-9 and -")
    if invalid := target_of(item).invalid:
        part, value, right = invalid
        yield Problem(Reason.BAD_SPEC, f"spec.scaleTargetRef.{part}", f"{value!r} is not a valid {part}", right)


def _bad_values(said: ScaledServiceSpec) -> Iterator[Problem]:
    """What the schema refuses, unless it is older than this, or not there."""
    if said.protocol and said.protocol not in _PROTOCOLS:
        yield Problem(
            Reason.BAD_SPEC, "spec.protocol", f"{said.protocol!r} is not known", f"write {join_words(Protocol)}"
        )
    too_few = isinstance(said.replicas, int) and said.replicas < 1
    if too_few or (isinstance(said.replicas, str) and said.replicas != LAST):
        yield Problem(
            Reason.BAD_SPEC, "spec.replicas", f"{said.replicas!r} is not what to wake to", "write last, or 1 or more"
        )
    if said.max_held is not None and said.max_held < 1:
        yield Problem(Reason.BAD_SPEC, "spec.maxHeld", f"{said.max_held} is too few", "write 1 or more")
    if said.listen is not None and not 0 < said.listen < 65536:
        yield Problem(
            Reason.BAD_SPEC, "spec.listen", f"{said.listen} is not a port", "write one from 1 to 65535, as in 5432"
        )
    if said.idle.by and said.idle.by not in _IDLE_BYS:
        yield Problem(Reason.BAD_SPEC, "spec.idle.by", f"{said.idle.by!r} is not known", f"write {join_words(IdleBy)}")
    for where, (what, right) in ignore_rules.bad_rules(said.ignore):
        yield Problem(Reason.BAD_SPEC, where, what, right)


def _bad_for(protocol: Protocol, said: ScaledServiceSpec, port: ServicePort) -> Iterator[Problem]:
    """What does not go with the protocol, which the schema cannot see where the Service tells it."""
    why = "" if said.protocol else f" ({_why(said, port)})"
    if protocol is Protocol.TCP and said.listen is None:
        right = "give it one as listen: 5432" + ("" if said.protocol else ", or say what it speaks as protocol: http")
        yield Problem(Reason.LISTEN_MISSING, "spec.listen", f"a tcp service{why} is told by its port alone", right)
    if protocol is Protocol.TCP and said.hosts:
        right = "leave hosts out" + ("" if said.protocol else ", or say what it speaks as protocol: http")
        yield Problem(Reason.HOSTS_NOT_USED, "spec.hosts", f"a tcp service{why} is told by its port alone", right)
    if protocol is not Protocol.TCP and said.listen is not None:
        what = f"only tcp services listen by themselves, and this is {protocol}{why}"
        yield Problem(Reason.LISTEN_NOT_USED, "spec.listen", what, "leave listen out, or write protocol: tcp")
    allowed = IDLE_BY[protocol]
    if said.idle.by in _IDLE_BYS and said.idle.by not in allowed:
        what = f"{said.idle.by} cannot be told of {protocol}{why}"
        yield Problem(Reason.IDLE_BY_UNKNOWN, "spec.idle.by", what, f"write {join_words(allowed)}")
    yield from ignore_rules.not_known_of(protocol, why, said.ignore)


def _why(said: ScaledServiceSpec, port: ServicePort) -> str:
    """Where the protocol comes from when the ScaledService does not say it."""
    if service_ports.protocol_of(port) is None:
        return "as spec.listen is given" if said.listen is not None else "as nothing says otherwise"
    if service_ports.protocol_of(ServicePort(app_protocol=port.app_protocol)):
        return f"as the Service port's appProtocol {port.app_protocol} says"
    return f"as the Service port's name {port.name} says"
