"""Clients of the soak: one request of each protocol, with an answer that proves which request it belongs to."""

from __future__ import annotations

import http.client
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from tests.e2e.harness import LOCAL, SERVERS, Zenvoy, quick, request, server

TIMEOUT_SECONDS = 90.0
LOST = (OSError, http.client.HTTPException, grpc.RpcError)
"""Exceptions of a request without an answer."""


class WrongAnswer(Exception):
    """An answer that does not belong to the request."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A protocol: the entry in the services file of a service with this name, and one request to it."""

    service: Callable[[str], dict[str, Any]]
    ask: Callable[[Zenvoy, str, str], None]
    """Send the request with a unique id. Raises `LOST` and `WrongAnswer`."""


def _ask_http(zenvoy: Zenvoy, name: str, unique: str) -> None:
    reply = request(
        zenvoy.http_port,
        name,
        f"/echo?{unique}",
        method="POST",
        body=unique.encode() * 100,
        timeout=TIMEOUT_SECONDS,
    )
    if reply.status != 200:
        raise ConnectionError(f"{reply.status}: {reply.body[:200]!r}")
    _compare(unique.encode() * 100, reply.body)


def _ask_grpc(zenvoy: Zenvoy, name: str, unique: str) -> None:
    target = f"{LOCAL}:{zenvoy.http_port}"
    options = [("grpc.default_authority", name), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options) as channel:
        call = channel.unary_unary("/test.Echo/Unary")
        _compare(unique.encode(), call(unique.encode(), timeout=TIMEOUT_SECONDS))


def _ask_tcp(zenvoy: Zenvoy, name: str, unique: str) -> None:
    with socket.create_connection((LOCAL, zenvoy.port(name)), TIMEOUT_SECONDS) as connection:
        _compare(f"{name} {unique}\n".encode(), _line(connection, unique, lines=1))


def _ask_tls(zenvoy: Zenvoy, name: str, unique: str) -> None:
    context = ssl.create_default_context(cafile=str(SERVERS / "blue.pem"))
    with (
        socket.create_connection((LOCAL, zenvoy.tls_port), TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="blue.localhost") as connection,
    ):
        _compare(f"{unique}\n".encode(), _line(connection, unique, lines=2).partition(b"\n")[2])


def _line(connection: socket.socket, unique: str, lines: int) -> bytes:
    """Send a line and return the answer of so many lines."""
    connection.sendall(f"{unique}\n".encode())
    received = b""
    while received.count(b"\n") < lines:
        data = connection.recv(4096)
        if not data:
            raise ConnectionError(f"closed after {received!r}")
        received += data
    return received


def _compare(expected: bytes, received: bytes) -> None:
    if received != expected:
        raise WrongAnswer(f"expected {expected[:60]!r}, received {received[:60]!r}")


KINDS: dict[str, Kind] = {
    "http": Kind(lambda name: {"name": name, "command": server("http_echo")}, _ask_http),
    "h2c": Kind(lambda name: {"name": name, "protocol": "h2c", "command": server("rpc")}, _ask_grpc),
    "tcp": Kind(lambda name: {"name": name, "protocol": "tcp", "command": quick("tcp")}, _ask_tcp),
    "tls": Kind(
        lambda name: {
            "name": name,
            "protocol": "tls",
            "hosts": ["blue.localhost"],
            "command": server("tcp", "echo", str(SERVERS / "blue.pem")),
        },
        _ask_tls,
    ),
}
_NAMES = {"http": ("web0", "web1", "web2"), "h2c": ("rpc0", "rpc1"), "tcp": ("db0", "db1", "db2"), "tls": ("blue",)}
SERVICES = {name: kind for kind, names in _NAMES.items() for name in names}
"""The protocol of each service. The certificate of TLS names only one host."""


def pause(chance: random.Random) -> float:
    """Return a time between two requests in seconds: a burst, or long enough to fall asleep."""
    return chance.uniform(0, 0.2) if chance.random() < 0.7 else chance.uniform(1.0, 5.0)
