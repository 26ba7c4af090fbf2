"""The two ranges of hold addresses. Counterpart: `records.py`, which assigns them to services.

A range has one address per service on the loopback device, or one port per service.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

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
