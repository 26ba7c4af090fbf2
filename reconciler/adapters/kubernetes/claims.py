"""What two ScaledServices may not share: a host, and a port of the proxy. The older one has it, the younger says so.

Pure. A service that lost some of its hosts goes on with the others; one that lost everything is not in force.
A bare name, such as `web`, is a convenience: who loses it to a service of another namespace hears nothing of it. Nor
does who loses the names of a Service that several ScaledServices stand for, as long as other hosts remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from reconciler.adapters.kubernetes.entries import Entry, Problem
from reconciler.core.spec import Protocol, Spec
from reconciler.core.wording import listed


def reserved(http: int = 10000, tls: int = 10443) -> Mapping[int, str]:
    """Ports of the proxy's own, with what they are; `http` and `tls` are those of the shared listeners."""
    return {
        http: "the listener that http and h2c services share",
        tls: "the listener that tls services share",
        9901: "Envoy's administration",
        9902: "Envoy's statistics",
        18001: "the holder",
        18081: "the holder's metrics",
    }


RESERVED: Mapping[int, str] = MappingProxyType(dict(reserved()))


@dataclass(slots=True)
class Settled:
    """What is in force of what was asked, and who does not have all that was asked."""

    entries: dict[str, Entry] = field(default_factory=dict)
    problems: dict[str, tuple[Problem, ...]] = field(default_factory=dict)


def settle(asked: Mapping[str, Entry], reserved: Mapping[int, str] = RESERVED) -> Settled:
    """Give every host and port to the oldest that asks for it; of the same age, to the first by name."""
    settled, owners = Settled(), _Owners(reserved)
    for key in sorted(asked, key=lambda key: (asked[key].created, key)):
        problems: list[Problem] = []
        entry = owners.port(asked[key], problems) if asked[key].spec.listen else owners.hosts(asked[key], problems)
        if entry:
            settled.entries[key] = entry
        if problems:
            settled.problems[key] = tuple(problems)
    return settled


class _Owners:
    """Who has what, while the oldest come first."""

    def __init__(self, reserved: Mapping[int, str]) -> None:
        self._reserved = reserved
        self._ports: dict[int, str] = {}
        self._hosts: dict[tuple[bool, str], Entry] = {}

    def port(self, entry: Entry, problems: list[Problem]) -> Entry | None:
        port, where = port_of(entry.spec), "spec.listen"
        if port in self._reserved:
            what = f"{port} is the port of {self._reserved[port]}"
            problems.append(Problem("ListenReserved", where, what, "give it another port"))
            return None
        owner = self._ports.setdefault(port, entry.spec.name)
        if owner != entry.spec.name:
            what = f"{port} is the port of {owner}, which is older"
            problems.append(Problem("ListenTaken", where, what, "give it another port"))
            return None
        return entry

    def hosts(self, entry: Entry, problems: list[Problem]) -> Entry | None:
        tls = entry.spec.protocol is Protocol.TLS
        owners = {host: self._hosts.setdefault((tls, host.lower()), entry) for host in entry.spec.hosts}
        lost = {host: owner for host, owner in owners.items() if owner is not entry}
        if not lost:
            return entry
        left = tuple(host for host in entry.spec.hosts if host not in lost)
        told = {host: owner for host, owner in lost.items() if not left or not _is_convenience(host, entry, owner)}
        for owner in {owner.spec.name: owner for owner in told.values()}.values():
            names = [host for host, has in told.items() if has is owner]
            what = f"{listed(names, 'and')} {'lead' if names[1:] else 'leads'} to {owner.spec.name}, which is older"
            problems.append(Problem("HostTaken", "spec.hosts", what, "give it hosts of its own"))
        return replace(entry, spec=replace(entry.spec, hosts=left)) if left else None


def port_of(spec: Spec) -> int:
    """The port that a tcp service listens on."""
    return int((spec.listen or "").rpartition(":")[2])


def _is_convenience(host: str, entry: Entry, owner: Entry) -> bool:
    if host == entry.service:
        return True
    own = host.startswith(f"{entry.service}.{entry.target.namespace}")
    return own and owner.service_key == entry.service_key
