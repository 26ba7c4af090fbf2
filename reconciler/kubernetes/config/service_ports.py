"""Selection of a Service port and of its protocol. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import PROTOCOL_OF_WORD, Protocol
from reconciler.core.text import closest_match, join_words
from reconciler.kubernetes.types.builtin import Service, ServicePort

PREFERRED = ("http", "https", "http2", "tcp")


def protocol_of(port: ServicePort) -> Protocol | None:
    """Return the protocol that `appProtocol`, or else the name, indicates; None if neither does."""
    name = port.name.lower()
    first_words = (name, re.sub(r"-[^-]*$", "", name), name.partition("-")[0])
    for word in (port.app_protocol.lower(), *first_words):
        if word in PROTOCOL_OF_WORD:
            return PROTOCOL_OF_WORD[word]
    return None


def select_port(service: Service, wanted: int | str | None, place: str) -> ServicePort | Problem:
    """Return the port with the wanted name or number, or the default; `place` is the field of a problem."""
    name = service.metadata.key
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
    if not ports:
        others = join_words({port.protocol for port in service.spec.ports}, "and") if service.spec.ports else ""
        what = f"Service {name} has only {others} ports" if others else f"Service {name} has no port"
        return Problem(Reason.PORT_NOT_FOUND, place, what, "add the TCP port that its pods listen on")
    if wanted is not None:
        return _find_port(name, ports, wanted, place)
    if len(ports) == 1:
        return ports[0]
    by_name = {port.name: port for port in reversed(ports)}
    for preferred in PREFERRED:
        if preferred in by_name:
            return by_name[preferred]
    what = f"Service {name} has {len(ports)} ports, none of them named {join_words(PREFERRED)}"
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
