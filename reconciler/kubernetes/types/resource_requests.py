"""CPU and memory requests of one pod of a workload, from its pod template. Pure.

A container without a request requests its limit, as the API server does. A resource that no container names is
unknown, not zero. Init containers that keep running (sidecars) count; those that end do not.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re

from reconciler.kubernetes.types.objects import Struct
from reconciler.ports.backend import UNKNOWN_REQUESTS, ResourceRequests

_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]*)(m|u|n|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?")
_SUFFIXES = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SUFFIXES |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}


class ContainerResources(Struct, frozen=True):
    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class Container(Struct, frozen=True):
    resources: ContainerResources = ContainerResources()
    restart_policy: str = ""


class TemplatePodSpec(Struct, frozen=True):
    containers: tuple[Container, ...] | None = ()
    init_containers: tuple[Container, ...] | None = ()


class Template(Struct, frozen=True):
    """The pod template of a workload."""

    spec: TemplatePodSpec = TemplatePodSpec()


def requests_of(template: Template) -> ResourceRequests:
    """Return the requests of one pod."""
    stays = [one for one in template.spec.init_containers or () if one.restart_policy == "Always"]
    running = (*(template.spec.containers or ()), *stays)
    found = ResourceRequests(_sum(running, "cpu"), _sum(running, "memory"))
    return UNKNOWN_REQUESTS if found == UNKNOWN_REQUESTS else found


def parse_quantity(said: str | int | float) -> float | None:
    """Return a quantity in its base unit, or None if it is invalid."""
    match = _QUANTITY.fullmatch(str(said))
    if match is None or not any(letter.isdigit() for letter in match[1]):
        return None
    suffix = match[2] or ""
    if suffix in _SUFFIXES:
        return float(match[1]) * _SUFFIXES[suffix]
    return float(match[1] + suffix)


def _sum(containers: tuple[Container, ...], resource: str) -> float | None:
    said = [
        (one.resources.requests or {}).get(resource, (one.resources.limits or {}).get(resource)) for one in containers
    ]
    numbers = [number for one in said if one is not None and (number := parse_quantity(one)) is not None]
    return sum(numbers) if numbers else None
