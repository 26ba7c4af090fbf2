"""Hold addresses and endpoints as text: `ip:port`, IPv6 in brackets."""

from __future__ import annotations

import ipaddress
import socket

_MAPPED = "::ffff:"


def join(host: str, port: int) -> str:
    """Return `ip:port` in the one spelling that is compared: IPv6 compressed and in brackets, IPv4-mapped as IPv4.

    The host must be in the kernel's spelling. That is already compressed, so it needs no parsing.
    """
    if ":" not in host:
        return f"{host}:{port}"
    if host.startswith(_MAPPED) and "." in host:
        return f"{host[len(_MAPPED) :]}:{port}"
    return f"[{host.partition('%')[0]}]:{port}"


def split(text: str) -> tuple[str, int]:
    """Return the host and port of `ip:port`. Raises ValueError with a remedy."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address with a port; write 127.0.0.1:18000 or [::1]:18000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets: [{host}]:{port}")
    return host, int(port)


def sockaddr(text: str) -> tuple[int, tuple[str, int]]:
    """Return the family and socket address of an `ip:port`. Raises ValueError for a name: names are not resolved."""
    host, port = split(text)
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ValueError(f"{text!r}: {host!r} is not an IP address") from None
    return (socket.AF_INET6 if version == 6 else socket.AF_INET), (host, port)


def canonical(text: str) -> str:
    """Return an `ip:port` in the spelling of `join`, and anything else unchanged."""
    try:
        host, port = split(text)
        return join(str(ipaddress.ip_address(host)), port)
    except ValueError:
        return text


def is_loopback(host: str) -> bool:
    """Return whether a host, in the kernel's spelling, is on the loopback interface."""
    return host == "::1" or host.removeprefix(_MAPPED).startswith("127.")
