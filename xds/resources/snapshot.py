"""The current resources of all types, with versions that are hashes of their content.

No I/O. The same content has the same version in every replica and after every restart, so an Envoy that reconnects
receives only what has changed. The cost of changing one endpoint does not depend on the number of services. What one
Envoy has received is in `ads/subscription.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from xds import ir, names
from xds.names import CDS, EDS, LDS, ORDER, RDS
from xds.resources.clusters import answers_assignment, load_assignment
from xds.resources.selection import Selection, Translate
from xds.resources.translation import Parts, SharedResource, parts, translation, trial
from xds.resources.validation import address_problems

MAX_VERSIONS = 8
"""Versions of a shared resource whose acknowledgement is still accepted."""


class Resource(NamedTuple):
    """An encoded message, and its hash as version."""

    name: str
    body: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the configuration: by type, the names of new or changed resources, and the removed resources."""

    changed: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, tuple[Resource, ...]]


def resource(name: str, body: bytes) -> Resource:
    """Return a resource with the version of its content."""
    return Resource(name, body, blake2b(body, digest_size=8).hexdigest())


class Table(dict[str, Resource]):
    """The resources of one type, by name. Only `put` and `drop` change it."""

    _sum = 0

    @property
    def version(self) -> str:
        """The version of the type: the sum of all hashes, so that one change costs one addition."""
        return f"{self._sum & 0xFFFFFFFFFFFFFFFF:016x}"

    def put(self, name: str, body: bytes) -> bool:
        """Add or replace a resource; return whether anything changed."""
        old = self.get(name)
        if old is not None and old.body == body:
            return False
        new = self[name] = resource(name, body)
        self._sum += int(new.version, 16) - (int(old.version, 16) if old else 0)
        return True

    def drop(self, name: str) -> Resource:
        """Remove and return the resource of this name."""
        old = self.pop(name)
        self._sum -= int(old.version, 16)
        return old


class Snapshot:
    """The current configuration and endpoints, as resources."""

    def __init__(self, translate: Translate = parts) -> None:
        self._tables = {type_url: Table() for type_url in ORDER}
        self.selection = Selection(translate)
        self._applied: Mapping[str, Parts] = {}
        """The parts that the tables contain."""
        self._routes: dict[str, tuple[tuple[ir.SocketAddress, ...], bool]] = {}
        """The latest endpoints of each service, and whether they are its hold address."""
        self._under_inquiry: SharedResource | None = None
        """The shared resource that an inquiry is about; it and the trial listener are not changed meanwhile."""
        self._sent: dict[SharedResource, dict[str, Mapping[str, Parts]]] = {kind: {} for kind in SharedResource}
        """The parts that were served with the latest versions of each shared resource, by version, oldest first."""

    def table(self, type_url: str) -> Table:
        """Return the resources of a type. Raises `KeyError` for a type that is not served."""
        return self._tables[type_url]

    def __contains__(self, service: str) -> bool:
        return service in self.selection.configured

    def configure(self, listen: ir.Listen, services: Iterable[ir.Upstream]) -> Change:
        """Replace the configuration; services that remain keep their endpoints.

        A service with an error is in `selection.faults`, and the others are served. Raises `ValueError` with all
        errors, one a line, and changes nothing, if the configuration as a whole is invalid.
        """
        wanted = tuple(services)
        if listen == self.selection.listen and wanted == tuple(self.selection.configured.values()):
            return Change({}, {})
        self.selection.choose(listen, wanted)
        for gone in self._routes.keys() - self.selection.configured.keys():
            del self._routes[gone]
        return self._apply()

    def accept(self, kind: SharedResource, version: str) -> None:
        """Record that an Envoy accepted this version of a shared resource, which may have changed since."""
        sent = self._sent[kind]
        if version in sent:
            for older in tuple(sent):
                if older == version:
                    break
                del sent[older]  # a later acknowledgement by a slower Envoy has no effect
            self.selection.accepted[kind] = sent[version]

    def ask(self, kind: SharedResource, services: Iterable[Parts]) -> Change:
        """Try these services' parts of a shared resource, in the trial listener."""
        self._under_inquiry = kind
        self._tables[LDS].put(names.TRIAL, trial(kind, services))
        return Change({LDS: (names.TRIAL,)}, {})

    def end_trial(self) -> Change:
        """End the trial, and serve what is selected now."""
        self._under_inquiry = None
        return self._apply()

    def owner(self, type_url: str, resource: str) -> str | None:
        """Return the service that a resource belongs to; None if it is shared or gone."""
        if type_url in (LDS, RDS):
            return next(
                (name for name, found in self.selection.served.items() if resource in found.own.get(type_url, ())), None
            )
        service = names.service_of_cluster(resource)
        return service if type_url in (CDS, EDS) and service in self else None

    def _apply(self) -> Change:
        """Update the tables to the parts that are served."""
        before, self._applied = self._applied, self.selection.served
        assert self.selection.listen is not None
        whole = translation(self.selection.listen, self.selection.served.values())
        if kind := self._under_inquiry:
            for type_url, name in ((kind.type_url, kind.resource), (LDS, names.TRIAL)):
                if present := self._tables[type_url].get(name):
                    whole[type_url][name] = present.body
        changed, removed = {}, {}
        for type_url in (CDS, LDS, RDS):
            removed[type_url] = self._drop(type_url, whole[type_url])
            put = self._tables[type_url].put
            changed[type_url] = tuple(name for name, body in whole[type_url].items() if put(name, body))
        self._note_versions()
        removed[EDS] = self._drop(EDS, whole[CDS])
        moved = (
            found
            for name, found in self.selection.served.items()
            if found is not before.get(name) and name in self._routes
        )
        changed[EDS] = tuple(name for found in moved for name in self._assign(found))
        return Change(changed, removed)

    def _note_versions(self) -> None:
        for kind, sent in self._sent.items():
            present = self._tables[kind.type_url].get(kind.resource)
            if present is None or kind is self._under_inquiry:
                continue
            sent.pop(present.version, None)
            sent[present.version] = self.selection.served
            if len(sent) > MAX_VERSIONS:
                del sent[next(iter(sent))]

    def route(self, service: str, endpoints: tuple[ir.SocketAddress, ...], held: bool = False) -> tuple[str, ...]:
        """Set the endpoints of a service; `held` if they are its hold address.

        Returns the names of the changed assignments. Raises `ValueError`.
        """
        if service not in self.selection.configured:
            raise ValueError(f"no service {service!r} is configured")
        where = f"service {service}"
        if found := [problem for endpoint in endpoints for problem in address_problems(where, endpoint)]:
            raise ValueError("\n".join(found))
        self._routes[service] = endpoints, held
        present = self.selection.served.get(service)
        return self._assign(present) if present else ()  # a service with an invalid name has no cluster

    def _assign(self, present: Parts) -> tuple[str, ...]:
        """Update a service's endpoints; return the names of the changed assignments."""
        service = present.service.name
        endpoints, held = self._routes[service]
        assignments = {service: load_assignment(service, endpoints, held)}
        if present.ignored_cluster:
            name = names.ignored(service)
            answers = present.answers if held else ""
            past = load_assignment(name, () if held else endpoints)
            assignments[name] = answers_assignment(service, answers) if answers else past
        return tuple(name for name, body in assignments.items() if self._tables[EDS].put(name, body))

    def _drop(self, type_url: str, keep: Mapping[str, object]) -> tuple[Resource, ...]:
        table = self._tables[type_url]
        return tuple(table.drop(name) for name in tuple(table) if name not in keep)
