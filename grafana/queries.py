"""PromQL that several panels share. Pure text; the metrics are those of docs/metrics.md.

More than one reconciler may tell of the same service, so what is told of a service is reduced by `max` (or, for what
each counts by itself, added up). `namespace` is a label in a cluster only; elsewhere it is empty, and all this holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from grafana.model import Query, Variable
from grafana.theme import PART_COLORS

SERVICE_LABELS = "namespace, service"
STATES = ("ScaledToZero", "Waking", "Active", "Idle", "Draining")
STALLED = "Stalled"
CODES = {state: code for code, state in enumerate((*STATES, STALLED))}
"""A state as a number, for panels that can only show numbers; a service that is stalled is Waking, too."""

IN_A_CLUSTER = "only a wake in a cluster has all of these parts"
NO_API_SERVER = "only a cluster has an API server"
PARTS_EXPLAINED = (
    "signal (until zenvoy decided); started (until the process ran), reachable (until a connection to it succeeded), "
    "or in a cluster scale (until the call was answered), scheduled (until a pod had a node), running (until it ran), "
    "ready (until it was); firstByte (until it answered)"
)
_CLUSTER_PARTS = ("scale", "scheduled", "running", "ready")

NAMESPACE = Variable(
    "namespace",
    "Namespace",
    "label_values(zenvoy_service_state, namespace)",
    "Namespaces whose services are shown; on one machine there are none, and All is right.",
    include_all=True,
)
SERVICES = Variable(
    "services",
    "Services",
    'label_values(zenvoy_service_state{namespace=~"$namespace"}, service)',
    "Services that are shown.",
    include_all=True,
)
"""Named other than `SERVICE`, which a link that keeps the variables would otherwise set to All."""
SERVICE = Variable("service", "Service", SERVICES.query, "The service that is shown.", include_all=False)


def services(name: str, **labels: str) -> str:
    """`zenvoy_service_<name>` of all chosen services; labels by pattern."""
    return _selector(name, 'service=~"$services"', labels)


def service(name: str, **labels: str) -> str:
    """`zenvoy_service_<name>` of the one chosen service; labels by pattern."""
    return _selector(name, 'service="$service"', labels)


def _selector(name: str, which: str, labels: Mapping[str, str]) -> str:
    matchers = ['namespace=~"$namespace"', which, *(f'{label}=~"{pattern}"' for label, pattern in labels.items())]
    return f"zenvoy_service_{name}{{{', '.join(matchers)}}}"


def each(expr: str, by: str = SERVICE_LABELS) -> str:
    """One value a service, whoever tells of it."""
    return f"max by ({by}) ({expr})"


def total(expr: str, by: str = SERVICE_LABELS) -> str:
    """What all of them counted, a service."""
    return f"sum by ({by}) ({expr})"


def where(expr: str, condition: str) -> str:
    """Only of services for which the condition, which has one value a service, holds."""
    return f"{expr} and on ({SERVICE_LABELS}) ({condition})"


def by_part(expr: Callable[[str], str], may_be_empty: str) -> tuple[Query, ...]:
    """A query for each part of a wake, as they follow one another: of one query for all, Grafana sorts by name."""
    return tuple(
        Query(expr(part), part, IN_A_CLUSTER if part in _CLUSTER_PARTS else may_be_empty) for part in PART_COLORS
    )


def beside(expr: str, rows: str) -> str:
    """The value of each service beside every row of it that there is."""
    return f"{expr} * on ({SERVICE_LABELS}) group_right () ({rows} > bool 0)"


def counted(counter: str) -> str:
    """By how much a counter grew in the whole range: exact, and right for one that began in it, as `increase` is not.

    After a restart in the range it is what was counted since.
    """
    return f"(({counter} - {counter} offset $__range) >= 0 or {counter})"


def began(gauge: str) -> str:
    """Only at moments when a service's gauge changed, or came to be, since the point before."""
    now, before = each(gauge), each(f"{gauge} offset $__interval")
    return f"({now} != {before} or {now} unless {before})"


def state_code(of: Callable[..., str]) -> str:
    """The number of each service's state; `of` is `services` or `service`."""
    states = [f"{of('state', state=state)} * {CODES[state]}" for state in STATES]
    return each(" or ".join([*states, f"{of('stalled')} * {CODES[STALLED]}"]))
