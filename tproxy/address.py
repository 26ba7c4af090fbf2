"""Hold addresses and endpoints as text: `ip:port`, IPv6 in brackets. No I/O but asking the kernel for a name."""

from __future__ import annotations

import ipaddress
import socket

_MAPPED = "::ffff:"


def join(host: str, port: int) -> str:
    """`ip:port` in the one spelling that is compared: IPv6 compressed and in brackets, IPv4-mapped as IPv4.

    The kernel's own spelling is already compressed, so this costs no parsing.
    """
    if ":" not in host:
        return f"{host}:{port}"
    if host.startswith(_MAPPED) and "." in host:
        return f"{host[len(_MAPPED) :]}:{port}"
    return f"[{host.partition('%')[0]}]:{port}"


def split(text: str) -> tuple[str, int]:
    """The host and port of `ip:port`. Raises ValueError, saying what would be right."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address with a port; write 127.0.0.1:18000 or [::1]:18000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets: [{host}]:{port}")
    return host, int(port)


def sockaddr(text: str) -> tuple[int, tuple[str, int]]:
    """The family and socket address of an `ip:port`. Raises ValueError for a name: names are not looked up here."""
    host, port = split(text)
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise ValueError(f"{text!r}: {host!r} is not an IP address") from None
    return (socket.AF_INET6 if version == 6 else socket.AF_INET), (host, port)


def canonical(text: str) -> str:
    """An `ip:port` from elsewhere in the spelling of `join`; returned as it is if it is no address."""
    try:
        host, port = split(text)
        return join(str(ipaddress.ip_address(host)), port)
    except ValueError:
        return text


def is_loopback(host: str) -> bool:
    """Whether a host, in the kernel's own spelling, never leaves the machine."""
    return host == "::1" or host.removeprefix(_MAPPED).startswith("127.")


def local(fd: int, family: int) -> str:
    """The address that an accepted connection was made to."""
    view = socket.socket(family, socket.SOCK_STREAM, 0, fd)
    try:
        name = view.getsockname()
    finally:
        view.detach()
    return join(name[0], name[1])


def peer(fd: int, family: int) -> str | None:
    """Who made a connection; None once it is no more."""
    view = socket.socket(family, socket.SOCK_STREAM, 0, fd)
    try:
        name = view.getpeername()
    except OSError:
        return None
    finally:
        view.detach()
    return join(name[0], name[1])
