"""PromQL shared by several panels.

Several reconcilers may export series for the same service, for example after a change of leader. Gauges are therefore
reduced with `max`, and counters are summed. `namespace` is set only in a cluster; the queries also work without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from grafana.model import Query, Variable
from grafana.theme import PART_COLORS

SERVICE_LABELS = "namespace, service"
STATES = ("ScaledToZero", "Waking", "Active", "Idle", "Draining")
STALLED = "Stalled"
CODES = {state: code for code, state in enumerate((*STATES, STALLED))}
"""States as numbers, for panels that show only numbers. A stalled service is also Waking."""

IN_A_CLUSTER = "the part exists only in a cluster"
NO_API_SERVER = "zenvoy does not run in a cluster"
PARTS_EXPLAINED = (
    "signal: until the reconciler decided; started: until the process ran; reachable: until it accepted a connection; "
    "firstByte: until the client got its first byte. In a cluster, between signal and firstByte: scale: until the API "
    "call returned; scheduled: until the pod had a node; running: until its containers ran; ready: until it was ready"
)
_CLUSTER_PARTS = ("scale", "scheduled", "running", "ready")

NAMESPACE = Variable(
    "namespace",
    "Namespace",
    "label_values(zenvoy_service_state, namespace)",
    "Namespaces to show. On one machine, choose All.",
    include_all=True,
)
SERVICES = Variable(
    "services",
    "Services",
    'label_values(zenvoy_service_state{namespace=~"$namespace"}, service)',
    "Services to show.",
    include_all=True,
)
"""Has another name than `SERVICE`; otherwise links between dashboards would set `SERVICE` to All."""
SERVICE = Variable("service", "Service", SERVICES.query, "The service to show.", include_all=False)


def services(name: str, **labels: str) -> str:
    """Select `zenvoy_service_<name>` for all chosen services; `labels` are patterns."""
    return _selector(name, 'service=~"$services"', labels)


def service(name: str, **labels: str) -> str:
    """Select `zenvoy_service_<name>` for the chosen service; `labels` are patterns."""
    return _selector(name, 'service="$service"', labels)


def _selector(name: str, matcher: str, labels: Mapping[str, str]) -> str:
    matchers = ['namespace=~"$namespace"', matcher, *(f'{label}=~"{pattern}"' for label, pattern in labels.items())]
    return f"zenvoy_service_{name}{{{', '.join(matchers)}}}"


def each(expr: str, by: str = SERVICE_LABELS) -> str:
    """Return one value per service, from whichever reconciler exports it."""
    return f"max by ({by}) ({expr})"


def total(expr: str, by: str = SERVICE_LABELS) -> str:
    """Return the sum over all reconcilers, per service."""
    return f"sum by ({by}) ({expr})"


def where(expr: str, condition: str) -> str:
    """Keep only services for which `condition`, which has one value per service, holds."""
    return f"{expr} and on ({SERVICE_LABELS}) ({condition})"


def by_part(expr: Callable[[str], str], may_be_empty: str) -> tuple[Query, ...]:
    """Return one query per part of a wake, in order; Grafana would sort the series of a single query by name."""
    return tuple(
        Query(expr(part), part, IN_A_CLUSTER if part in _CLUSTER_PARTS else may_be_empty) for part in PART_COLORS
    )


def beside(expr: str, rows: str) -> str:
    """Repeat the value of each service for every one of its rows."""
    return f"{expr} * on ({SERVICE_LABELS}) group_right () ({rows} > bool 0)"


def counted(counter: str) -> str:
    """Return the exact growth of a counter in the range.

    Unlike `increase`, it also counts the first value of a counter that starts within the range. After a restart within
    the range, it is the value since the restart.
    """
    return f"(({counter} - {counter} offset $__range) >= 0 or {counter})"


def began(gauge: str) -> str:
    """Keep only the points where the gauge of a service changed or appeared since the previous point."""
    now, before = each(gauge), each(f"{gauge} offset $__interval")
    return f"({now} != {before} or {now} unless {before})"


def state_code(of: Callable[..., str]) -> str:
    """Return the number of each service's state; `of` is `services` or `service`."""
    states = [f"{of('state', state=state)} * {CODES[state]}" for state in STATES]
    return each(" or ".join([*states, f"{of('stalled')} * {CODES[STALLED]}"]))
