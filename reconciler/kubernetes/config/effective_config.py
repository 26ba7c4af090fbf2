"""The configuration in effect, updated as single ScaledServices change. Pure.

A ScaledService that requests a host or port that it cannot have keeps its earlier ones, as long as no older
ScaledService requests them. Counterpart: `conflicts.py`, which assigns them. It runs only if a claim changed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from functools import partial

from reconciler.core.reasons import Problem
from reconciler.core.spec import Protocol
from reconciler.kubernetes.config.conflicts import FIRST_COME, resolve_conflicts
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.kubernetes.config.service_config import ServiceConfig


class EffectiveConfig:
    """The claims of all ScaledServices, settled.

    `reserved` are ports of the proxy's own, by number. `namespaces` are those of the cluster, kept current by the
    caller; None when they are not known.
    """

    def __init__(
        self,
        reserved: Mapping[int, str],
        policy: HostPolicy = FIRST_COME,
        namespaces: Container[str] | None = None,
    ) -> None:
        self._settled = partial(resolve_conflicts, reserved_ports=reserved, policy=policy, namespaces=namespaces)
        self.asked: dict[str, ServiceConfig] = {}
        """The latest request of each ScaledService; only `request` changes it."""
        self._had: dict[str, ServiceConfig] = {}
        """The request of each service in effect that was granted."""
        self._entries: dict[str, ServiceConfig] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._changed: set[str] = set()
        """Services that changed without changing their claim."""
        self._outdated = False

    def request(self, key: str, entry: ServiceConfig | None) -> None:
        """Replace the request of a ScaledService; None withdraws it."""
        before = self.asked.pop(key, None)
        if entry:
            self.asked[key] = entry
        if before and entry and _claim(before) == _claim(entry) and self._had.get(key) is before:
            self._had[key] = entry
            self._changed.add(key)
        else:
            self._outdated = True

    def invalidate(self) -> None:
        """Settle everything again, because the namespaces of the cluster changed."""
        self._outdated = True

    def resolve(self) -> tuple[dict[str, ServiceConfig], dict[str, tuple[Problem, ...]]]:
        """Return the configurations in effect, and the problems of lost claims. Callers must not change them."""
        if self._outdated:
            self._settle()
        elif self._changed:
            self._entries = self._entries | {key: self._with_claims(key) for key in self._changed}
        self._changed, self._outdated = set(), False
        return self._entries, self._problems

    def _settle(self) -> None:
        first = self._settled(self.asked)
        lost = {key for key, asked in self.asked.items() if _has_lost(first.entries.get(key), asked)}
        kept = {key: self._had[key] for key in lost if _has_other(self._had.get(key), self.asked[key])}
        second = self._settled({**self.asked, **kept}) if kept else first
        self._had = {key: kept.get(key, self.asked[key]) for key in second.entries}
        self._entries = second.entries
        self._problems = second.problems | {key: first.problems[key] for key in kept}

    def _with_claims(self, key: str) -> ServiceConfig:
        """Return the requested configuration with the hosts and the port that the service owns."""
        asked, owned = self.asked[key], self._entries[key].spec
        if (asked.spec.hosts, asked.spec.listen) == (owned.hosts, owned.listen):
            return asked
        return replace(asked, spec=replace(asked.spec, hosts=owned.hosts, listen=owned.listen))


def _claim(entry: ServiceConfig) -> tuple[object, ...]:
    """Return the parts of a configuration that `resolve_conflicts` depends on."""
    spec = entry.spec
    return spec.protocol is Protocol.TLS, spec.listen, spec.hosts, entry.created, entry.service_key


def _has_lost(entry: ServiceConfig | None, asked: ServiceConfig) -> bool:
    """Return whether a service lost everything that leads to it, or its port."""
    return entry is None or entry.spec.listen != asked.spec.listen


def _has_other(had: ServiceConfig | None, asked: ServiceConfig) -> bool:
    return had is not None and had.uid == asked.uid and _claim(had) != _claim(asked)
