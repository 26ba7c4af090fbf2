"""The selection and the totals of services in `zenvoy status` against a cluster. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.record import State
from reconciler.core.text import pluralize

STATES = tuple(str(state) for state in State)
TOTALS_FROM = 20
"""Number of services from which the totals are shown: fewer can be counted at a glance."""
Shown = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServiceFilter:
    """The services to show; without a restriction, all."""

    states: tuple[str, ...] = ()
    problems: bool = False
    """True to show only services with a problem."""

    @property
    def selects_all(self) -> bool:
        """True if there is no restriction."""
        return not (self.states or self.problems)

    def apply(self, services: Iterable[Shown]) -> list[Shown]:
        """Return the selected services."""
        return [one for one in services if self._selects(one)]

    def _selects(self, service: Shown) -> bool:
        return (not self.states or service["state"] in self.states) and (not self.problems or has_problem(service))


def has_problem(service: Shown) -> bool:
    """Return whether its wake is stalled, or `Ready` is False for another reason than its state."""
    ready = next((one for one in service["conditions"] if one["type"] == "Ready"), None)
    return bool(service["stalled"]) or (
        ready is not None and ready["status"] == "False" and ready["reason"] not in STATES
    )


def totals(services: Sequence[Shown]) -> str:
    """Return the number of services in each state, and with problems, for people."""
    numbers = Counter(one["state"] for one in services)
    states = [*STATES, *sorted(numbers.keys() - set(STATES))]
    parts = [f"{numbers[state]} {state}" for state in states if numbers[state]]
    problems = sum(map(has_problem, services))
    return f"{pluralize(len(services), 'service')}: {', '.join(parts)}; {problems or 'none'} with a problem"
