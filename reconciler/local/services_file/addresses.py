"""Addresses and names as they may stand in a services file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from reconciler.local.services_file.values import Value

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(_LABEL)
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_EVERYTHING = ip_address("::")
_ADDRESS = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[^:\[\]]*)):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens."""

    ip: IPv4Address | IPv6Address
    port: int

    @classmethod
    def of(cls, ip: str, port: int) -> Address:
        """One that is known to be right. Raises `ValueError`."""
        return cls(ip_address(ip), port)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"

    def meets(self, other: Address) -> bool:
        """Whether both cannot be had at once: the same, or one is all addresses. `::` takes those of IPv4 too."""
        if self.port != other.port:
            return False
        one, two = _unmapped(self.ip), _unmapped(other.ip)
        if _EVERYTHING in (one, two):
            return True
        return one == two or (one.version == two.version and (one.is_unspecified or two.is_unspecified))


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one of the form `::ffff:127.0.0.1` stands for."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def address(value: Value) -> Address | None:
    """`ip:port`, IPv6 in brackets."""
    text = value.as_written('"127.0.0.1:10000"')
    if text is None:
        return None
    if match := _ADDRESS.fullmatch(text):
        port = int(match["port"])
        try:
            ip = ip_address(match["four"] if match["six"] is None else match["six"])
        except ValueError:
            ip = None
        if ip is not None and not getattr(ip, "scope_id", None) and 0 < port < 65536:
            return Address(ip, port)
    port_text = text.rpartition(":")[2]
    is_port = port_text.isdecimal() and len(port_text) <= 5 and 0 < int(port_text) < 65536
    right = port_text if is_port else "10000"
    value.wrong(f'{text!r} is not ip:port; write it as "127.0.0.1:{right}" or "[::1]:{right}"')
    return None


def service_name(value: Value) -> str:
    """A DNS label; empty when it is none."""
    text = value.text("web")
    if text is None or _NAME.fullmatch(text):
        return text or ""
    value.wrong(f"{text!r} is not a DNS label: at most 63 of a-z, 0-9 and -{_instead(text, _NAME)}")
    return ""


def host_name(value: Value) -> str:
    """A DNS name without a port; empty when it is none."""
    text = value.text("shop.example.com")
    if text is None or (_HOST.fullmatch(text) and len(text) <= 253):
        return text or ""
    without_port = re.sub(r":\d+$", "", text)
    value.wrong(f"{text!r} is not a host name, such as shop.example.com{_instead(without_port, _HOST)}")
    return ""


def _instead(text: str, pattern: re.Pattern[str]) -> str:
    """A name that is close to it and allowed."""
    near = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    return f"; write {near}" if pattern.fullmatch(near) else ""
