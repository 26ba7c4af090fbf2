"""The world: every resource that Envoy may be told, with versions that are hashes of the content.

No I/O. The same content has the same version in every replica and after every restart, so an Envoy that reconnects is
told nothing that it knows. Changing one endpoint costs the same however many services there are. Its counterpart,
`stream.py`, knows what one Envoy has been told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from xds import ignoring, ir, names
from xds.check import address_problems, problems
from xds.translate import Parts, Translation, load_assignment, parts, translation
from xds.types import CDS, EDS, LDS, ORDER, RDS


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: the encoded message and the hash of it."""

    name: str
    body: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a configuration changed: by type, the names that are new or different, and the resources that are gone."""

    changed: Mapping[str, tuple[str, ...]]
    removed: Mapping[str, tuple[Resource, ...]]


def resource(name: str, body: bytes) -> Resource:
    """Make a resource with the version of its content."""
    return Resource(name, body, blake2b(body, digest_size=8).hexdigest())


class Table:
    """All resources of one type."""

    def __init__(self) -> None:
        self._resources: dict[str, Resource] = {}
        self._sum = 0

    @property
    def version(self) -> str:
        """The version of all together: the sum of the hashes, so that one change costs one addition."""
        return f"{self._sum & 0xFFFFFFFFFFFFFFFF:016x}"

    def get(self, name: str) -> Resource | None:
        """Return the resource of this name."""
        return self._resources.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._resources)

    def __len__(self) -> int:
        return len(self._resources)

    def put(self, name: str, body: bytes) -> bool:
        """Add or replace a resource; say whether anything changed."""
        old = self._resources.get(name)
        if old is not None and old.body == body:
            return False
        new = self._resources[name] = resource(name, body)
        self._sum += int(new.version, 16) - (int(old.version, 16) if old else 0)
        return True

    def drop(self, name: str) -> Resource | None:
        """Remove and return the resource of this name."""
        old = self._resources.pop(name, None)
        if old is not None:
            self._sum -= int(old.version, 16)
        return old


class World:
    """The present configuration and endpoints."""

    def __init__(self) -> None:
        self._tables = {type_url: Table() for type_url in ORDER}
        self._parts: dict[str, Parts] = {}
        self._listen: ir.Listen | None = None
        self._services: tuple[ir.Service, ...] = ()

    def table(self, type_url: str) -> Table:
        """Return the resources of a type. Raises `KeyError` for a type that is not served."""
        return self._tables[type_url]

    def __contains__(self, service: str) -> bool:
        return service in self._parts

    def configure(self, listen: ir.Listen, services: Iterable[ir.Service]) -> Change:
        """Make this the configuration; endpoints of services that stay are kept.

        Raises `ValueError` with all problems, one a line, and changes nothing.
        """
        wanted = tuple(services)
        if listen == self._listen and wanted == self._services:
            return Change({}, {})
        is_good = self._is_served if listen == self._listen else lambda _: False
        if found := problems(listen, wanted, is_good):
            raise ValueError("\n".join(found))
        new_parts = {service.name: self._translated(service) for service in wanted}
        whole = translation(listen, new_parts.values())
        if found := inconsistencies(whole):
            raise ValueError("\n".join(found))
        self._parts, self._listen, self._services = new_parts, listen, wanted
        changed, removed = {}, {}
        for type_url in (CDS, LDS, RDS):
            changed[type_url], removed[type_url] = self._replace(type_url, whole.resources[type_url])
        removed[EDS] = self._drop(EDS, whole.resources[CDS])
        return Change(changed, removed)

    def route(self, service: str, endpoints: tuple[ir.Address, ...], held: bool = False) -> tuple[str, ...]:
        """Make these the endpoints of a service; `held` says that they are its hold address.

        Returns the names of the assignments that this changes. Raises `ValueError`.
        """
        if service not in self._parts:
            raise ValueError(f"no service {service!r} is configured")
        where = f"service {service}"
        if found := [problem for endpoint in endpoints for problem in address_problems(where, endpoint)]:
            raise ValueError("\n".join(found))
        assignments = {service: load_assignment(service, endpoints, held)}
        if self._parts[service].ignored_cluster:
            name = names.ignored(service)
            answered = held and self._parts[service].answering_host
            past = load_assignment(name, () if held else endpoints)
            assignments[name] = ignoring.load_assignment(service) if answered else past
        return tuple(name for name, body in assignments.items() if self._tables[EDS].put(name, body))

    def _is_served(self, service: ir.Service) -> bool:
        known = self._parts.get(service.name)
        return known is not None and (known.service is service or known.service == service)

    def _translated(self, service: ir.Service) -> Parts:
        return self._parts[service.name] if self._is_served(service) else parts(service)

    def _replace(self, type_url: str, bodies: dict[str, bytes]) -> tuple[tuple[str, ...], tuple[Resource, ...]]:
        table = self._tables[type_url]
        removed = self._drop(type_url, bodies)
        return tuple(name for name, body in bodies.items() if table.put(name, body)), removed

    def _drop(self, type_url: str, keep: Mapping[str, object]) -> tuple[Resource, ...]:
        table = self._tables[type_url]
        gone = (table.drop(name) for name in tuple(table) if name not in keep)
        return tuple(old for old in gone if old is not None)


def inconsistencies(whole: Translation) -> list[str]:
    """Return what listeners and routes name that is not there: Envoy would answer 503, or wait for ever."""
    missing_clusters = whole.clusters_used - whole.resources[CDS].keys()
    missing_routes = whole.routes_used - whole.resources[RDS].keys()
    return [
        *(f"the cluster {name!r} is named but is not there" for name in sorted(missing_clusters)),
        *(f"the route configuration {name!r} is named but is not there" for name in sorted(missing_routes)),
    ]
