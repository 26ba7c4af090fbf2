"""Conflicts between services over names, hosts, addresses, and ports, and with the addresses of command-line options.

A conflict is reported at the later place in the file, and names the earlier one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from itertools import chain

from reconciler.core.address import Address
from reconciler.core.spec import Protocol
from reconciler.local.services_file.service import Draft
from reconciler.local.services_file.values import Value

_LOOPBACK = ip_address("127.0.0.1")


def find_conflicts(
    listeners: Sequence[tuple[Address, Value]], services: Sequence[Draft], taken: Mapping[str, Address]
) -> None:
    """Record all conflicts. `listeners` are the shared ones; `taken` has addresses by command-line option."""
    _names(services)
    _hosts([draft for draft in services if draft.entry.spec.protocol.is_http])
    _hosts([draft for draft in services if draft.entry.spec.protocol is Protocol.TLS])
    own = [(draft.listen, draft.fields["listen"]) for draft in services if draft.listen]
    _ports(_addresses(taken, [*listeners, *own]), services)


def _names(services: Iterable[Draft]) -> None:
    first: dict[str, Value] = {}
    for draft in services:
        if name := draft.entry.spec.name:
            place = draft.fields["name"]
            if (other := first.setdefault(name, place)) is not place:
                place.wrong(f"{name!r} is already used by {_place(other)}; choose another name")


def _hosts(services: Iterable[Draft]) -> None:
    """Record hosts that two services use. Names count as hosts; equal names are reported by `_names`."""
    pairs = [(host, place, draft) for draft in services for host, place in draft.hosts]
    first = {host: (place, draft) for host, place, draft in reversed(pairs)}
    for host, place, draft in pairs:
        other, owner = first[host]
        if owner is draft or (place is draft.fields.get("name") and other is owner.fields.get("name")):
            continue
        place.wrong(f"{host!r} is already used by {_place(other)}; remove it or choose another host")


def _addresses(taken: Mapping[str, Address], listeners: Iterable[tuple[Address, Value]]) -> list[tuple[Address, str]]:
    """Return all listen addresses with their owners."""
    by_port: defaultdict[int, list[tuple[Address, str]]] = defaultdict(list)
    for whose, address in taken.items():
        by_port[address.port].append((address, whose))
    for address, place in listeners:
        earlier = by_port[address.port]
        if whose := next((whose for other, whose in earlier if address.overlaps(other)), ""):
            place.wrong(f"{address} is already used by {whose}; choose another port")
        earlier.append((address, _place(place)))
    return list(chain.from_iterable(by_port.values()))


def _ports(listeners: Iterable[tuple[Address, str]], services: Iterable[Draft]) -> None:
    """Record conflicts of the ports of commands, with each other and with listen addresses on the loopback device."""
    taken = {address.port: whose for address, whose in listeners if address.overlaps(Address(_LOOPBACK, address.port))}
    for draft in services:
        port = draft.entry.program.port
        if port is None:
            continue
        place = draft.fields["port"]
        if port in taken:
            place.wrong(f"{port} is already used by {taken[port]}; choose another, or remove it to use a free port")
        taken.setdefault(port, _place(place))


def _place(value: Value) -> str:
    return f"{value.where} (line {value.line})"
