"""Socket addresses: the type, its parser, and the two ways between `ip:port` and its parts. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_PATTERN = re.compile(r"(?:\[(?P<v6>[^\[\]%]*)\]|(?P<v4>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_ANY_V6 = ip_address("::")


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port; `str()` is `ip:port`, with IPv6 in brackets."""

    ip: IPv4Address | IPv6Address
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> Address:
        """Return the address of a host without brackets. Raises `ValueError` if the host is not an IP address."""
        return cls(ip_address(host), port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `ip:port`. Raises `ValueError` with a message for people."""
        match = _PATTERN.fullmatch(text)
        try:
            if match is None or not 0 < int(match["port"]) < 65536:
                raise ValueError
            ip = IPv4Address(match["v4"]) if match["v6"] is None else IPv6Address(match["v6"])
        except ValueError:
            raise ValueError(f"{text!r} is not ip:port; use for example {_example(text)}") from None
        return cls(ip, int(match["port"]))

    def overlaps(self, other: Address) -> bool:
        """Return whether two sockets cannot listen on both: the same, or one is all addresses. `::` includes IPv4."""
        if self.port != other.port:
            return False
        one, two = _unmapped(self.ip), _unmapped(other.ip)
        if _ANY_V6 in (one, two):
            return True
        return one == two or (one.version == two.version and (one.is_unspecified or two.is_unspecified))

    def __str__(self) -> str:
        return join_address(str(self.ip), self.port)


def join_address(host: str, port: int) -> str:
    """Return `ip:port` for a host without brackets, which is not checked."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Return the host without brackets and the port of `ip:port`; the host is not checked. Raises `ValueError`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address of an IPv4-mapped one, such as `::ffff:127.0.0.1`."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def _example(text: str) -> str:
    """Return two valid addresses, with the port of the text if that is valid."""
    port = text.rpartition(":")[2]
    valid = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
    number = port if valid else "18080"
    return f"127.0.0.1:{number} or [::1]:{number}"
