from __future__ import annotations

import pytest

from tests.tproxy.protocols.messages import h2_request
from tproxy.protocols import http2
from tproxy.protocols.client_address import forwarded_for

H2 = h2_request("192.0.2.7")
AT = H2.index(http2.frame(1, 5, 1)[3:9], len(http2.PREFACE)) - 3
BLOCK = H2[AT + 9 :]


@pytest.mark.parametrize(
    ("request_bytes", "address"),
    [
        (b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\nhost: web\r\n\r\n", "192.0.2.7"),
        (b"GET / HTTP/1.1\r\nhost: web\r\nx-forwarded-for: 192.0.2.7", None),
        (b"GET / HTTP/1.1\r\nhost: web\r\n\r\nx-forwarded-for: 192.0.2.7\r\n", None),
        (b"GET / HTTP/1.1\r\nx-forwarded-for: \r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nx-forwarded-for: unknown\xff\r\n\r\n", None),
        (b"", None),
        (H2, "192.0.2.7"),
        (h2_request("2001:db8::7"), "2001:db8::7"),
        (h2_request("192.0.2.7", name="forwarded"), None),
        (H2[:AT] + http2.frame(1, 0x2D, 1, bytes((3,)) + bytes(5) + BLOCK + bytes(3)), "192.0.2.7"),
        (H2[:AT] + http2.frame(1, 1, 1, BLOCK[:5]) + http2.frame(9, 4, 1, BLOCK[5:]), "192.0.2.7"),
        (H2[:AT] + http2.frame(1, 1, 1, BLOCK[:5]), None),
        (H2[:AT] + http2.frame(1, 0x0D, 1), None),
        (H2[:AT] + http2.frame(1, 5, 1, b"\xff" * 20), None),
        (H2[:-1], None),
        (http2.PREFACE, None),
    ],
    ids=[
        *("http", "not all there", "in the body", "empty", "no address", "nothing"),
        *("h2c", "h2c IPv6", "h2c without", "h2c padded, with a priority", "h2c in two frames", "h2c half of it"),
        *("h2c empty", "h2c malformed", "h2c not all there", "h2c no request"),
    ],
)
def test_forwarded_for_reads_only_a_complete_head(request_bytes: bytes, address: str | None) -> None:
    assert forwarded_for(request_bytes) == address
