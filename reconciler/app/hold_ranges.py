"""The two ranges of hold addresses: one address per service on the loopback device, or one port per service."""

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

    def listens_at(self, address: str) -> bool:
        """Return whether a hold address is in this range."""
        return self.index(address) is not None


@dataclass(frozen=True, slots=True)
class Tproxy:
    """Hold addresses by port, which a redirect rule diverts to the holder of the pod."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """The number of hold addresses."""
        return self.last - self.first + 1

    @property
    def diverted(self) -> range:
        """The ports of a proxy pod that the redirect rule diverts to the holder."""
        return range(self.first, self.last + 1)

    def address(self, index: int) -> str:
        """Return the hold address of an index; addresses repeat after `size` indexes."""
        return f"{_LOCAL}:{self.first + index % self.size}"

    def index(self, address: str) -> int | None:
        """Return the index of a hold address; None for one that the rule does not divert."""
        host, _, port = address.rpartition(":")
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= len(str(self.last)) else 0
        return number - self.first if host == _LOCAL and self.first <= number <= self.last else None

    def listens_at(self, address: str) -> bool:
        """Return whether a hold address is in this range."""
        return self.index(address) is not None
