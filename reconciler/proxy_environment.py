"""The proxy that the environment names for a server, by the rules of kubectl. Pure.

`NO_PROXY` has host names with their subdomains, IP addresses, and CIDR blocks, each with an optional port, and `*`. A
server on this machine is never reached through a proxy, and neither is a Service by its name within the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy to reach `url`, or None if it is reached directly."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    proxy = _variable(f"{parts.scheme}_proxy", environment)
    if not proxy or _is_local(host):
        return None
    entries = _variable("no_proxy", environment).split(",")
    if any(_matches(entry.strip().lower(), host, port) for entry in entries):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or "svc" in host.split(".")[2:3]


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass  # one of the two is a name, or the entry has a port
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit():
        return int(number) == port and _matches(name, host, port)
    suffix = entry.removeprefix("*").removeprefix(".")
    return bool(suffix) and (host == entry or host.endswith(f".{suffix}"))
