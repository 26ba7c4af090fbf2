"""Bytes that Envoy and its clients send first: PROXY headers and HTTP/2 requests."""

from __future__ import annotations

import socket

from h2.config import H2Configuration
from h2.connection import H2Connection

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def header(client: str = "192.0.2.7", port: int = 4567, more: bytes = b"") -> bytes:
    """Return a header as Envoy sends it; the second address is the one that the client connected to."""
    kind = socket.AF_INET6 if ":" in client else socket.AF_INET
    host = socket.inet_pton(kind, client)
    rest = host + host[::-1] + port.to_bytes(2) + (5432).to_bytes(2) + more
    return SIGNATURE + bytes((0x21, 0x21 if ":" in client else 0x11)) + len(rest).to_bytes(2) + rest


def h2_request(address: str, name: str = "x-forwarded-for") -> bytes:
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "web"), (name, address)]
    connection.send_headers(1, headers, end_stream=True)
    return connection.data_to_send()
