"""All services of the cluster: ScaledServices beside the Services that they name, and who may have what.

Rules: nothing is told before both kinds were seen whole. What has mistakes stays in force as it was last without; what
is being deleted is in force no more, as its replicas are restored then. Changes that come at once are told at once.
Counterparts: `wanted.py` and `claims.py`, which judge; `owned.py`, which makes ScaledServices of labelled Services.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from reconciler.adapters.kubernetes.api import Api
from reconciler.adapters.kubernetes.claims import RESERVED, settle
from reconciler.adapters.kubernetes.entries import Entry, Problem
from reconciler.adapters.kubernetes.informer import Informer
from reconciler.adapters.kubernetes.objects import decoder, path
from reconciler.adapters.kubernetes.owned import UNREAD, OwnedScaledServices
from reconciler.adapters.kubernetes.resources import API_VERSION, COMMAND_ANNOTATION, PLURAL, ScaledService
from reconciler.adapters.kubernetes.wanted import Cluster, service_of, wanted
from reconciler.adapters.kubernetes.workloads import Service

Entries = Mapping[str, Entry]
Problems = Mapping[str, tuple[Problem, ...]]
OnEntries = Callable[[Entries, Problems], None]
OnScaledService = Callable[[str, ScaledService | None], None]
_T = TypeVar("_T")


class Catalogue:
    """What is asked for in a cluster. Keys are `namespace/name`, of a ScaledService or of a labelled Service.

    `on_entries` is told all that is in force and all that is wrong, whenever any of it changed; `on_scaled_service` of
    each ScaledService as it comes, changes and goes; `leads` says whether those of labelled Services are ours to write.
    """

    def __init__(
        self,
        api: Api,
        leads: Callable[[], bool],
        on_entries: OnEntries,
        on_scaled_service: OnScaledService = lambda key, item: None,
        cluster: Cluster | None = None,
        reserved: Mapping[int, str] = RESERVED,
    ) -> None:
        self._on_entries, self._on_scaled_service = on_entries, on_scaled_service
        self._cluster, self._reserved = cluster or Cluster(), reserved
        self._asked: dict[str, Entry] = {}
        self._in_force: dict[str, Entry] = {}
        """Before claims were settled, and without mistakes."""
        self._mistakes: dict[str, tuple[Problem, ...]] = {}
        self._users: dict[str, set[str]] = {}
        """Of a Service: the ScaledServices that name it."""
        self._uses: dict[str, str] = {}
        self._changed = False
        self._whole = asyncio.Event()
        self._told: tuple[Entries, Problems] | None = None
        self.scaled_services = Informer(
            api, path(API_VERSION, PLURAL), decoder(ScaledService), self._saw_scaled_service, on_sync=self._synced
        )
        self.services = Informer(api, path("v1", "services"), decoder(Service), self._saw_service, on_sync=self._synced)
        items = self.scaled_services.items, self.services.items
        self._owned = OwnedScaledServices(api, *items, leads, lambda _: self._mark(), self._cluster)

    @property
    def synced(self) -> bool:
        """Whether both kinds were seen whole."""
        return self.scaled_services.synced and self.services.synced

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.scaled_services.run())
            tasks.create_task(self.services.run())
            await self._whole.wait()
            await self._owned.run()

    def _saw_scaled_service(self, key: str, item: ScaledService | None) -> None:
        self._index(key, item)
        self._judge(key, item)
        self._owned.look(key)
        self._on_scaled_service(key, item)

    def _saw_service(self, key: str, _: Service | None) -> None:
        for user in self._users.get(key, ()):
            self._judge(user, self.scaled_services.items.get(user))
        self._owned.look(key)

    def _index(self, key: str, item: ScaledService | None) -> None:
        used = service_of(item) if item else None
        before = self._uses.get(key)
        if used == before:
            return
        if before:
            self._users[before].discard(key)
            if not self._users[before]:
                del self._users[before]
        if used:
            self._uses[key] = used
            self._users.setdefault(used, set()).add(key)
        else:
            del self._uses[key]

    def _judge(self, key: str, item: ScaledService | None) -> None:
        """What this one asks for now, when it is right; otherwise what it asked for last."""
        asked, mistakes = self._asked.get(key), self._mistakes.get(key, ())
        if item is None or item.metadata.deletion_timestamp or UNREAD in item.metadata.annotations:
            found: Entry | tuple[Problem, ...] = ()
            asked_now = None
        else:
            found = wanted(item, self.services.items.get(service_of(item)), self._cluster)
            asked_now = found if isinstance(found, Entry) else _as_before(asked, item)
        mistakes_now = () if isinstance(found, Entry) else found
        if asked_now == asked and mistakes_now == mistakes:
            return
        _put(self._asked, key, asked_now)
        _put(self._mistakes, key, mistakes_now or None)
        self._mark()

    def _synced(self) -> None:
        if not self.synced:
            return
        # A ScaledService that came before its Service was known looked as if it had none.
        for key, item in self.scaled_services.items.items():
            self._judge(key, item)
        for key in self.scaled_services.items.keys() | self.services.items.keys():
            self._owned.look(key)
        self._whole.set()
        self._changed = False
        self._mark()

    def _mark(self) -> None:
        """Tell, once everything that comes in this moment has come."""
        if self._changed or not self.synced:
            return
        self._changed = True
        asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._changed = False
        entries, problems = self._settled()
        if (entries, problems) == self._told:
            return
        self._told = entries, problems
        self._on_entries(entries, problems)

    def _settled(self) -> tuple[Entries, Problems]:
        """What is in force. Who asks for what it cannot have keeps what it had, as long as nobody older wants that."""
        first = settle(self._asked, self._reserved)
        lost = self._asked.keys() - first.entries.keys()
        kept = {key: self._in_force[key] for key in lost if _is_other(self._in_force.get(key), self._asked[key])}
        second = settle({**self._asked, **kept}, self._reserved) if kept else first
        self._in_force = {key: kept.get(key, self._asked[key]) for key in second.entries}
        claims = second.problems | {key: first.problems[key] for key in kept}
        keys = {*self._mistakes, *claims, *self._owned.troubled}
        problems = {key: self._problems_of(key, claims.get(key, ())) for key in keys}
        return second.entries, {key: found for key, found in problems.items() if found}

    def _problems_of(self, key: str, claims: tuple[Problem, ...]) -> tuple[Problem, ...]:
        """Each mistake once: what the annotations are told is not told of what was made of them too."""
        told = self._owned.problems(key)
        known = {(problem.reason, problem.what) for problem in told}
        rest = (*self._mistakes.get(key, ()), *claims)
        return (*told, *(problem for problem in rest if (problem.reason, problem.what) not in known))


def _as_before(asked: Entry | None, item: ScaledService) -> Entry | None:
    """What was last right, of this very object; commands, and keeping it awake, need nothing else to be right."""
    if asked is None or asked.uid != item.metadata.uid:
        return None
    command = item.metadata.annotations.get(COMMAND_ANNOTATION)
    spec = replace(asked.spec, paused=asked.spec.paused or item.spec.paused)
    return replace(asked, spec=spec, command=command)


def _is_other(before: Entry | None, asked: Entry) -> bool:
    return before is not None and before.uid == asked.uid and before.spec != asked.spec


def _put(into: dict[str, _T], key: str, value: _T | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value
