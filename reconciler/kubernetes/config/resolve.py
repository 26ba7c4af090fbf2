"""Resolution of a ScaledService and its Service to a spec and a target, or to all problems. Pure.

The API server has already validated the object by its schema (deploy/chart/crds). Values that could do harm are
validated again, because the schema may be older than this module. `conflicts.py` compares services with each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.core import validation
from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import PROTOCOL_OF_WORD, Protocol, Spec, UsageUnit
from reconciler.core.text import closest_match, join_words, parse_duration
from reconciler.core.validation import IDLE_BY, MAX_HELD, MAX_PORT, MAX_TRUSTED_HOPS, WAKE_BY, Notation
from reconciler.kubernetes.config import busy, ignore_rules
from reconciler.kubernetes.config.capture import Capture, CaptureMode, capture_of
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.kubernetes.config.service_config import Readiness, ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort
from reconciler.kubernetes.types.objects import LONGEST_SHOWN, Target, is_label
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceSpec

ANY_ADDRESS = "0.0.0.0"
DEFAULT_TARGET = ("apps/v1", "Deployment")
DURATIONS = {"idleAfter": "5m", "wakeTimeout": "2m", "holdTimeout": "60s", "drainTimeout": "30s"}
"""The fields that are durations, with their defaults, which the schema has too."""
_PROTOCOLS, _UNITS = frozenset(Protocol), frozenset(UsageUnit)
MAX_NAME_LENGTH = 253
"""Characters of `namespace/name`; Envoy rejects all of its configuration for a longer name."""
PREFERRED_PORTS = ("http", "https", "http2", "tcp")
SPEC = Notation(place=lambda path: f"spec.{path}", key=lambda path: path)
"""The names of fields in a ScaledService."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Settings that all services of a cluster share."""

    listen_host: str = ANY_ADDRESS
    """IP address of the listeners of single services; IPv6 in brackets."""
    policy: HostPolicy = field(default_factory=HostPolicy)
    capture_ports: range = range(0)
    """Ports of the proxy for captured Services; empty: no Service is captured."""


def service_of(item: ScaledService) -> str:
    """Return the `namespace/name` of its Service."""
    return f"{item.metadata.namespace}/{item.spec.service or item.metadata.name}"


def target_of(item: ScaledService) -> Target:
    """Return its target, by default the Deployment with the name of the Service."""
    ref, (api_version, kind) = item.spec.scale_target_ref, DEFAULT_TARGET
    name = ref.name or item.spec.service or item.metadata.name
    return Target(ref.api_version or api_version, ref.kind or kind, name, item.metadata.namespace)


def protocol_of(item: ScaledService, service: Service) -> Protocol | None:
    """Return its protocol; None if the port of the Service is not known."""
    port = _port(item, service, SPEC)
    return None if isinstance(port, Problem) else _protocol(item.spec, port)


def wake_timeout(item: ScaledService) -> float:
    """Return its `wakeTimeout` in seconds, or the default if the value is invalid."""
    seconds = _seconds("wakeTimeout", item.spec.wake_timeout, SPEC)
    return seconds if isinstance(seconds, float) else parse_duration(DURATIONS["wakeTimeout"]) or 0.0


def host_names(service: str, namespace: str, policy: HostPolicy) -> tuple[str, ...]:
    """Return the names that a Service has within the cluster, with the bare one where the policy allows it."""
    inside = f"{service}.{namespace}"
    return inside, f"{inside}.svc", f"{inside}.svc.{policy.domain}", *((service,) if policy.bare_names else ())


def resolve(
    item: ScaledService, service: Service | None, cluster: ClusterConfig, names: Notation = SPEC
) -> ServiceConfig | tuple[Problem, ...]:
    """Return the configuration, or all problems, whose fields are named as in `names`."""
    port, capture = _port(item, service, names), capture_of(item, service, cluster.capture_ports, names)
    fields = item.spec
    texts = (fields.idle_after, fields.wake_timeout, fields.hold_timeout, fields.drain_timeout)
    seconds = [_seconds(name, text, names) for name, text in zip(DURATIONS, texts, strict=True)]
    problems = [found for found in (port, *seconds) if isinstance(found, Problem)]
    problems += [*_name_problems(item, names), *filter(None, _value_problems(fields, names))]
    if not isinstance(port, Problem):
        problems += filter(None, _protocol_problems(_protocol(fields, port), fields, port, names, capture))
    if problems or isinstance(port, Problem):
        return tuple(problems)
    return _entry(item, port, [value for value in seconds if isinstance(value, float)], cluster, capture)


def _entry(
    item: ScaledService, port: ServicePort, times: list[float], cluster: ClusterConfig, capture: Capture
) -> ServiceConfig:
    """Return the configuration of valid fields; `times` are the seconds of `DURATIONS`, in that order."""
    meta, fields = item.metadata, item.spec
    protocol, service = _protocol(fields, port), service_of(item).partition("/")[2]
    listen = capture.port or fields.listen
    own = () if protocol is Protocol.TCP else host_names(service, meta.namespace, cluster.policy)
    spec = Spec(
        name=meta.key,
        protocol=protocol,
        hosts=tuple(dict.fromkeys((*own, *fields.hosts))),
        listen=f"{cluster.listen_host}:{listen}" if listen else None,
        trusted_hops=fields.http.trusted_hops,
        replicas=fields.replicas if isinstance(fields.replicas, int) else None,
        idle_after=times[0],
        wake_timeout=times[1],
        hold_timeout=times[2],
        drain_timeout=times[3],
        max_held=fields.max_held if fields.max_held is not None else Spec(name="").max_held,
        idle_by=UsageUnit(fields.idle.by) if fields.idle.by else IDLE_BY[protocol][0],
        wake_by=UsageUnit(fields.wake.by) if fields.wake.by else WAKE_BY[protocol][0],
        ignore=tuple(map(ignore_rules.convert_rule, fields.ignore)),
        refusal_details=fields.refusal_details,
        has_busy_check=fields.busy is not None,
        paused=fields.paused,
    )
    created = meta.creation_timestamp.timestamp() if meta.creation_timestamp else 0.0
    readiness, target = Readiness(fields.readiness or Readiness.PROBES), target_of(item)
    return ServiceConfig(
        spec, target, service, port, created, meta.uid, meta.generation, readiness, fields.busy, capture=capture
    )


def _port(item: ScaledService, service: Service | None, names: Notation) -> ServicePort | Problem:
    place, name = names.place("service"), service_of(item)
    if service is None:
        what = f"Service {name} does not exist"
        return Problem(Reason.SERVICE_NOT_FOUND, place, what, "create it, or name an existing one")
    if service.spec.type == "ExternalName":
        what = f"Service {name} is an ExternalName, which has no pods"
        return Problem(Reason.SERVICE_UNUSABLE, place, what, "use a Service with a selector")
    if not service.pod_selector:
        what = f"Service {name} has no selector, so its pods are not known"
        return Problem(Reason.SERVICE_UNUSABLE, place, what, "add a selector, or use a Service that has one")
    return select_port(service, item.spec.port, names.place("port"))


def select_port(service: Service, wanted: int | str | None, place: str) -> ServicePort | Problem:
    """Return the port with the wanted name or number, or the default; `place` is the field of a problem."""
    name = service.metadata.key
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
    if not ports:
        others = {port.protocol for port in service.spec.ports}
        what = f"Service {name} has only {join_words(others, 'and')} ports" if others else f"Service {name} has no port"
        return Problem(Reason.PORT_NOT_FOUND, place, what, "add the TCP port that its pods listen on")
    if wanted is not None:
        return _find_port(name, ports, wanted, place)
    if len(ports) == 1:
        return ports[0]
    by_name = {port.name: port for port in reversed(ports)}
    for preferred in PREFERRED_PORTS:
        if preferred in by_name:
            return by_name[preferred]
    what = f"Service {name} has {len(ports)} ports, none of them named {join_words(PREFERRED_PORTS)}"
    return Problem(Reason.PORT_AMBIGUOUS, place, what, f"use {join_words(map(_shown, ports))}")


def _find_port(service: str, ports: Sequence[ServicePort], wanted: int | str, place: str) -> ServicePort | Problem:
    for port in ports:
        if str(wanted) in (port.name, str(port.port)):
            return port
    what = f"Service {service} has no TCP port {wanted}"
    behind = [port for port in ports if str(wanted) == str(port.target_port)]
    guess = closest_match(str(wanted), [port.name for port in ports if port.name])
    if behind:
        right = f"that is the target port of {_shown(behind[0])}; use {_shown(behind[0])}"
    elif guess:
        right = f"did you mean {guess}?"
    else:
        right = f"use {join_words(map(_shown, ports))}"
    return Problem(Reason.PORT_NOT_FOUND, place, what, right)


def _shown(port: ServicePort) -> str:
    return port.name or str(port.port)


def _protocol(fields: ScaledServiceSpec, port: ServicePort) -> Protocol:
    if fields.protocol in _PROTOCOLS:
        return Protocol(fields.protocol)
    return _named_protocol(port) or (Protocol.TCP if fields.listen is not None else Protocol.HTTP)


def _named_protocol(port: ServicePort) -> Protocol | None:
    """Return the protocol that `appProtocol`, or else the name, indicates; None if neither does."""
    name = port.name.lower()
    first_words = (name, re.sub(r"-[^-]*$", "", name), name.partition("-")[0])
    for word in (port.app_protocol.lower(), *first_words):
        if word in PROTOCOL_OF_WORD:
            return PROTOCOL_OF_WORD[word]
    return None


def _seconds(name: str, given: str | None, names: Notation) -> float | Problem:
    text = DURATIONS[name] if given is None else given
    return validation.duration_problem(names.place(name), text) or parse_duration(text) or 0.0


def _name_problems(item: ScaledService, names: Notation) -> Iterator[Problem]:
    """Return the names that are too long, or invalid: they become parts of URLs, and could lead to another object."""
    if (length := len(item.metadata.key)) > MAX_NAME_LENGTH:
        what = f"with its namespace and a slash it has {length} characters; the maximum is {MAX_NAME_LENGTH}"
        remedy = "use a shorter name, and set spec.service to the name of the Service"
        yield Problem(Reason.BAD_SPEC, "metadata.name", what, remedy)
    if item.spec.service and not is_label(item.spec.service):
        what = f"{item.spec.service[:LONGEST_SHOWN]!r} is not a valid Service name"
        remedy = "use at most 63 characters from a-z, 0-9, and -, for example web"
        yield Problem(Reason.BAD_SPEC, names.place("service"), what, remedy)
    if invalid := target_of(item).invalid:
        part, value, remedy = invalid
        place = names.place(f"scaleTargetRef.{part}")
        yield Problem(Reason.BAD_SPEC, place, f"{value!r} is not a valid {part}", remedy)


def _value_problems(fields: ScaledServiceSpec, names: Notation) -> Iterator[Problem | None]:
    """Return the problems that the schema rejects, unless it is older than this module or missing."""
    place = names.place
    if fields.protocol:
        yield validation.choice_problem(place("protocol"), fields.protocol, Protocol, PROTOCOL_OF_WORD)
    if fields.replicas is not None:
        yield validation.replicas_problem(place("replicas"), fields.replicas)
    if fields.max_held is not None:
        yield validation.number_problem(place("maxHeld"), fields.max_held, MAX_HELD, 1024)
    if fields.listen is not None:
        yield validation.number_problem(place("listen"), fields.listen, MAX_PORT, 5432)
    if fields.http.trusted_hops is not None:
        hops = fields.http.trusted_hops
        yield validation.number_problem(place("http.trustedHops"), hops, MAX_TRUSTED_HOPS, 1, 0)
    for by, unit in (("idle.by", fields.idle.by), ("wake.by", fields.wake.by)):
        if unit:
            yield validation.choice_problem(place(by), unit, UsageUnit)
    if fields.readiness:
        yield validation.choice_problem(place("readiness"), fields.readiness, Readiness)
    if fields.capture:
        yield validation.choice_problem(place("capture"), fields.capture, CaptureMode)
    yield from busy.check_problems(fields.busy, names)
    yield from ignore_rules.rule_problems(fields.ignore, names)


def _protocol_problems(
    protocol: Protocol, fields: ScaledServiceSpec, port: ServicePort, names: Notation, capture: Capture
) -> Iterator[Problem | None]:
    """Return the fields that do not fit the protocol, which the schema cannot detect if it comes from the Service."""
    origin = "" if fields.protocol else f" ({_origin(fields, port, names)})"
    listens = fields.listen is not None or capture.is_due or bool(capture.port)
    if capture.is_due and fields.listen is not None:
        what = "not available with capture, which assigns a port"
        yield Problem(Reason.LISTEN_NOT_USED, names.place("listen"), what, f"remove {names.key('listen')}")
    if capture.is_due and protocol is Protocol.TLS:
        what = f"not available for tls services{origin}"
        place, remedy = names.place("capture"), f"set {names.key('protocol')}: tcp"
        yield Problem(Reason.CAPTURE_NOT_POSSIBLE, place, what, remedy)
        listens = fields.listen is not None
    yield validation.listen_problem(protocol, listens, names, "5432", origin)
    yield validation.hosts_problem(protocol, bool(fields.hosts), names, origin)
    if fields.http.trusted_hops is not None:
        yield validation.trusted_hops_problem(protocol, listens, names, "8100", origin)
    for by, unit in (("idle.by", fields.idle.by), ("wake.by", fields.wake.by)):
        if unit in _UNITS:
            yield validation.unit_problem(by, protocol, UsageUnit(unit), names, origin)
    yield from ignore_rules.unavailable_parts(protocol, origin, fields.ignore, names)


def _origin(fields: ScaledServiceSpec, port: ServicePort, names: Notation) -> str:
    """Return where a protocol that is not set comes from."""
    if _named_protocol(port) is None:
        return f"because {names.place('listen')} is set" if fields.listen is not None else "the default"
    if _named_protocol(ServicePort(app_protocol=port.app_protocol)):
        return f"from the Service port's appProtocol {port.app_protocol}"
    return f"from the Service port's name {port.name}"
