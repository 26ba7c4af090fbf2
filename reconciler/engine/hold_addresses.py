"""Hold addresses: the two ranges of them, and their assignment to services.

A range has one address per service on the loopback device, or one port per service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from reconciler.ports.store import NoIndexLeft

_FIRST, _LOCAL = IPv4Address("127.64.0.0"), "127.0.0.1"


@dataclass(frozen=True, slots=True)
class AnyIp:
    """Hold addresses in 127.64.0.0/10, all of which Linux delivers to the holder's one socket."""

    port: int
    """The port of the holder."""
    size = 1 << 22
    """The number of hold addresses."""
    diverted = range(0)
    """The ports that a redirect rule diverts: none."""

    def address(self, index: int) -> str:
        """Return the hold address of an index; addresses repeat after `size` indexes."""
        return f"{_FIRST + index % self.size}:{self.port}"

    def index(self, address: str) -> int | None:
        """Return the index of a hold address; None for one that holders do not listen on."""
        host, _, port = address.rpartition(":")
        try:
            found = int(IPv4Address(host)) - int(_FIRST)
        except ValueError:
            return None
        return found if port == str(self.port) and 0 <= found < self.size else None


@dataclass(frozen=True, slots=True)
class Tproxy:
    """Hold addresses by port, which a redirect rule diverts to the holder of the pod."""

    diverted: range
    """The ports of a proxy pod that the redirect rule diverts to the holder."""

    @property
    def size(self) -> int:
        """The number of hold addresses."""
        return len(self.diverted)

    def address(self, index: int) -> str:
        """Return the hold address of an index; addresses repeat after `size` indexes."""
        return f"{_LOCAL}:{self.diverted[index % self.size]}"

    def index(self, address: str) -> int | None:
        """Return the index of a hold address; None for one that the rule does not divert."""
        host, _, port = address.rpartition(":")
        is_number = port.isascii() and port.isdecimal() and len(port) <= len(str(self.diverted[-1]))
        is_ours = host == _LOCAL and is_number and int(port) in self.diverted
        return self.diverted.index(int(port)) if is_ours else None


HoldRange = AnyIp | Tproxy
"""The addresses that holders listen on."""


class HoldAddressAllocator:
    """The hold addresses in use, each by one service. `next_index` returns unused indexes, or raises `NoIndexLeft`."""

    def __init__(self, hold_range: HoldRange, next_index: Callable[[], int]) -> None:
        self._range, self._next_index = hold_range, next_index
        self._owners: dict[str, str] = {}

    def replace(self, owners: Mapping[str, str]) -> None:
        """Replace all assignments by these: the service of each address."""
        self._owners = dict(owners)

    def assign(self, service: str, address: str) -> str:
        """Assign the same address if holders listen there and it is free; otherwise a new one. Raises `NoIndexLeft`."""
        if self.listens_at(address) and self._owners.setdefault(address, service) == service:
            return address
        return self.allocate(service)

    def allocate(self, service: str) -> str:
        """Assign an address without a service. Raises `NoIndexLeft`, also if every address is in use.

        There are fewer addresses than indexes, so that addresses repeat.
        """
        if len(self._owners) >= self._range.size:
            raise NoIndexLeft
        while True:
            address = self._range.address(self._next_index())
            if self._owners.setdefault(address, service) == service:
                return address

    def release(self, service: str, address: str) -> None:
        """Free an address, if the service has it."""
        if self._owners.get(address) == service:
            del self._owners[address]

    def listens_at(self, address: str) -> bool:
        """Return whether holders listen on this address."""
        return self._range.index(address) is not None

    @property
    def is_nearly_full(self) -> bool:
        """True if at most one address is free: a service may be waiting for the next one."""
        return len(self._owners) + 1 >= self._range.size
