"""The services of the cluster: ScaledServices with their Services, after conflicts over hosts and ports.

Nothing is published before every informer has synced. A ScaledService with mistakes keeps its last valid configuration.
One that is being deleted stays in force, as departing, until our finalizer is removed. One that its Service is about
to recreate stays a moment longer; otherwise clients would be refused. Changes that arrive together are published
together. Publishing takes longer the more services there are, so pauses follow, in which clients are served.
Counterparts: `resolve.py` and `conflicts.py`, which decide; `service_controller.py`, which creates ScaledServices from
labeled Services; `status/finalizer.py`, which removes finalizers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.core.busy import BusyUntil
from reconciler.core.reasons import Problem
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import MultiNamespaceInformer
from reconciler.kubernetes.config.busy import busy_until
from reconciler.kubernetes.config.conflicts import RESERVED_PORTS, ClaimRules, EffectiveConfig
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve, service_of
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.config.service_controller import UNREAD, ServiceController
from reconciler.kubernetes.types.builtin import SERVICES, Service
from reconciler.kubernetes.types.objects import Object, decoder
from reconciler.kubernetes.types.scaled_service import API_VERSION, FINALIZER, PLURAL, ScaledService

RECREATE_SECONDS = 10.0
"""Time for which a removed ScaledService stays in force if its Service is about to recreate it."""
GONE_SECONDS = 5.0
"""Time after which a deleted Service is considered gone for good."""
PAUSES, LONGEST_PAUSE_SECONDS = 4, 2.0
"""The pause after a publication, in multiples of its duration, and its limit."""
ServiceConfigs = Mapping[str, ServiceConfig]
Problems = Mapping[str, tuple[Problem, ...]]


class DeletedServices:
    """The ScaledServices whose Service was deleted, with the time that is left to create it again.

    A tool that replaces a Service creates it again at once, so clients wait for it at first. Once it is gone for good,
    no client waits longer than that: `on_gone` is called with the key, whose configuration has changed by time alone.
    """

    def __init__(self, on_gone: Callable[[str], None], seconds: float = GONE_SECONDS) -> None:
        self._on_gone, self._seconds = on_gone, seconds
        self._timers: dict[str, asyncio.TimerHandle | None] = {}
        """None once the Service is gone for good."""

    def apply(self, key: str, config: ServiceConfig) -> ServiceConfig:
        """Return the configuration of a ScaledService without its Service."""
        if key not in self._timers:
            self._timers[key] = asyncio.get_running_loop().call_later(self._seconds, self._expire, key)
        spec = config.spec
        if self._timers[key] is None:
            spec = replace(spec, hold_timeout=min(spec.hold_timeout, self._seconds))
        return replace(config, spec=spec, has_service=False)

    def forget(self, key: str) -> None:
        """Forget a ScaledService that has its Service, or is gone itself."""
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def _expire(self, key: str) -> None:
        self._timers[key] = None
        self._on_gone(key)


class KubernetesProvider:
    """The services configured in a cluster. Keys are `namespace/name`, of a ScaledService or of a labeled Service.

    `on_entries` is called with all configurations in force and all problems when any of them changes;
    `on_scaled_service` and `on_service` are called for each added, changed, or removed object,
    and `on_busy_until` with the time until which its application calls itself busy. `leads` returns whether this
    replica writes the ScaledServices of labeled Services.
    """

    def __init__(
        self,
        api: Api,
        leads: Callable[[], bool],
        on_entries: Callable[[ServiceConfigs, Problems], None],
        on_scaled_service: Callable[[str, ScaledService | None], None] = lambda key, item: None,
        on_busy_until: Callable[[str, BusyUntil | None], None] = lambda key, until: None,
        cluster: ClusterConfig | None = None,
        namespaces: Sequence[str] = (),
        reserved: Mapping[int, str] = RESERVED_PORTS,
        recreate_seconds: float = RECREATE_SECONDS,
        gone_seconds: float = GONE_SECONDS,
        on_service: Callable[[str, Service | None], None] = lambda key, service: None,
    ) -> None:
        self._on_entries, self._on_scaled_service, self._on_busy_until = on_entries, on_scaled_service, on_busy_until
        self._on_service, self._recreate_seconds = on_service, recreate_seconds
        self._cluster = cluster or ClusterConfig()
        self._mistakes: dict[str, tuple[Problem, ...]] = {}
        self._departing: set[str] = set()
        self._deleted_services = DeletedServices(self._look_again, gone_seconds)
        self._users: dict[str, set[str]] = {}
        """By Service, the ScaledServices that name it."""
        self._uses: dict[str, str] = {}
        self._changed_services: set[str] = set()
        self._is_scheduled, self._pause_until, self._all_synced = False, 0.0, asyncio.Event()
        self._published: tuple[ServiceConfigs, Problems] | None = None
        self.scaled_services = MultiNamespaceInformer(
            api, (API_VERSION, PLURAL), namespaces, decoder(ScaledService), self._saw_scaled_service, self._synced
        )
        self.services = MultiNamespaceInformer(
            api, SERVICES, namespaces, decoder(Service), self._saw_service, self._synced
        )
        self._informers: list[MultiNamespaceInformer[Any]] = [self.scaled_services, self.services]
        self._namespace_names: set[str] = set()
        if not namespaces:  # otherwise without rights in the whole cluster
            self._informers.append(self._watch_namespaces(api))
        rules = ClaimRules(reserved, self._cluster.policy, None if namespaces else self._namespace_names)
        self._effective = EffectiveConfig(rules)
        items = self.scaled_services.items, self.services.items
        self._service_controller = ServiceController(api, *items, leads, self._schedule, self._cluster)

    def _watch_namespaces(self, api: Api) -> MultiNamespaceInformer[Object]:
        kind = ("v1", "namespaces")
        return MultiNamespaceInformer(api, kind, (), decoder(Object), self._saw_namespace, self._synced)

    @property
    def synced(self) -> bool:
        """True once every informer has synced."""
        return all(informer.synced for informer in self._informers)

    def lead(self) -> None:
        """Start to write the ScaledServices of labeled Services."""
        if self.synced:
            self._service_controller.look_at_all()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
            await self._all_synced.wait()
            await self._service_controller.queue.run()

    def _saw_scaled_service(self, key: str, item: ScaledService | None) -> None:
        self._index(key, item)
        self._read_busy_until(key, item)
        if item is None and self._effective.asked.get(key) and self._service_controller.labeled_service(key):
            asyncio.get_running_loop().call_later(self._recreate_seconds, self._look_again, key)
        else:
            self._resolve(key, item)
        self._service_controller.look(key)
        self._on_scaled_service(key, item)

    def _look_again(self, key: str) -> None:
        self._resolve(key, self.scaled_services.items.get(key))

    def _saw_service(self, key: str, service: Service | None) -> None:
        users = self._users.get(key, ())
        for user in users:
            self._read_busy_until(user, self.scaled_services.items.get(user))
        if users:
            self._changed_services.add(key)
            self._schedule()
        self._service_controller.look(key)
        self._on_service(key, service)

    def _saw_namespace(self, name: str, item: Object | None) -> None:
        """Update the namespaces: a host such as `web.shop` belongs to namespace `shop` as soon as that exists."""
        if (item is not None) != (name in self._namespace_names):
            (self._namespace_names.add if item else self._namespace_names.discard)(name)
            self._effective.invalidate()
            self._schedule()

    def _read_busy_until(self, key: str, item: ScaledService | None) -> None:
        self._on_busy_until(key, busy_until(item, self.services.items.get(service_of(item)) if item else None))

    def users(self, service: str) -> Collection[str]:
        """Return the ScaledServices that name a Service."""
        return self._users.get(service, ())

    def _index(self, key: str, item: ScaledService | None) -> None:
        if before := self._uses.pop(key, None):
            self._users[before].discard(key)
            if not self._users[before]:
                del self._users[before]
        if item:
            used = self._uses[key] = service_of(item)
            self._users.setdefault(used, set()).add(key)

    def _resolve(self, key: str, item: ScaledService | None) -> None:
        """Resolve an object to its configuration; if it has mistakes, keep its last valid one."""
        asked, mistakes = self._effective.asked.get(key), self._mistakes.get(key, ())
        if item is None or _is_released(item) or UNREAD in item.metadata.annotations:
            found: ServiceConfig | tuple[Problem, ...] = ()
            asked_now = service = None
        else:
            service = self.services.items.get(service_of(item))
            found = resolve(item, service, self._cluster)
            is_whole = isinstance(found, ServiceConfig) and not found.awaits_port
            asked_now = found if isinstance(found, ServiceConfig) and is_whole else _as_before(asked, item)
        if asked_now and service is None:
            asked_now = self._deleted_services.apply(key, asked_now)
        else:
            self._deleted_services.forget(key)
        departs = item is not None and item.metadata.deletion_timestamp is not None
        mistakes_now = () if departs or isinstance(found, ServiceConfig) else found
        if asked_now == asked and mistakes_now == mistakes and departs == (key in self._departing):
            return
        if asked_now != asked:
            self._effective.request(key, asked_now)
        (self._departing.add if departs else self._departing.discard)(key)
        self._mistakes.pop(key, None)
        if mistakes_now:
            self._mistakes[key] = mistakes_now
        self._schedule()

    def _synced(self) -> None:
        if not self.synced:
            return
        self._changed_services.clear()
        # A ScaledService that arrived before its Service seemed to have none.
        for key, item in self.scaled_services.items.items():
            self._read_busy_until(key, item)
            self._resolve(key, item)
        self._service_controller.look_at_all()
        self._all_synced.set()
        self._is_scheduled = False
        self._schedule()

    def _schedule(self) -> None:
        """Publish soon, so that changes that arrive together are published together."""
        if self._is_scheduled or not self.synced:
            return
        self._is_scheduled = True
        pause = max(0.0, self._pause_until - time.monotonic())
        asyncio.get_running_loop().call_later(pause, self._publish_and_pause)

    def _publish_and_pause(self) -> None:
        began = time.monotonic()
        changed, self._changed_services = self._changed_services, set()
        # Many ScaledServices may name a changed Service, so the pause covers this too.
        for user in [user for key in changed for user in self._users.get(key, ())]:
            self._look_again(user)
        self._publish()
        ended = time.monotonic()
        self._pause_until = ended + min(PAUSES * (ended - began), LONGEST_PAUSE_SECONDS)

    def _publish(self) -> None:
        self._is_scheduled = False
        entries, claims = self._effective.resolve()
        if departing := self._departing & entries.keys():
            entries = entries | {key: _departing(entries[key]) for key in departing}
        keys = {*self._mistakes, *claims, *self._service_controller.troubled}
        found = {key: self._problems_of(key, claims.get(key, ())) for key in keys}
        problems = {key: its for key, its in found.items() if its}
        if (entries, problems) == self._published:
            return
        self._published = entries, problems
        self._on_entries(entries, problems)

    def _problems_of(self, key: str, claims: tuple[Problem, ...]) -> tuple[Problem, ...]:
        """Return each problem once: a mistake in the annotations also appears in the ScaledService made from them."""
        of_service = self._service_controller.problems(key)
        known = {(problem.reason, problem.message) for problem in of_service}
        rest = (*self._mistakes.get(key, ()), *claims)
        return (*of_service, *(problem for problem in rest if (problem.reason, problem.message) not in known))


def _is_released(item: ScaledService) -> bool:
    """Return whether it is being deleted without our finalizer."""
    return item.metadata.deletion_timestamp is not None and FINALIZER not in item.metadata.finalizers


def _departing(entry: ServiceConfig) -> ServiceConfig:
    return replace(entry, spec=replace(entry.spec, departing=True))


def _as_before(asked: ServiceConfig | None, item: ScaledService) -> ServiceConfig | None:
    """Return the last valid configuration of this object, which is enough to keep it awake."""
    if asked is None or asked.uid != item.metadata.uid:
        return None
    return replace(asked, spec=replace(asked.spec, paused=asked.spec.paused or item.spec.paused))
