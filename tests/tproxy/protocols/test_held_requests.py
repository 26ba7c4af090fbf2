from __future__ import annotations

import pytest

from tproxy.protocols import http2
from tproxy.protocols.http2 import HeldRequests

SETTINGS = http2.frame(4, 0, 0)


def test_requests_cut_anywhere_are_the_same() -> None:
    request = http2.frame(http2.HEADERS, 0x4, 1, b"\x82") + http2.frame(0, 0, 1, bytes(40))
    later = http2.frame(http2.HEADERS, 0x4, 3, b"\x82") + http2.frame(http2.RST_STREAM, 0, 1, bytes(4))
    trailers = http2.frame(http2.HEADERS, 0x5, 3, b"\x82")
    unread = http2.PREFACE + SETTINGS + request + later + trailers
    requests = HeldRequests()
    assert not any(requests.update(unread[:end], float(end)) for end in range(len(unread) + 1))
    assert requests.last == 3
    assert requests.last_since(float(len(unread))) == 3
    assert requests.last_since(60.0) == 0, "the first request was cancelled"
    assert requests.update(unread + http2.frame(http2.RST_STREAM, 0, 3, bytes(4)), 999.0)


@pytest.mark.parametrize("unread", [b"", b"GET / HTTP/1.1\r\n\r\n", http2.PREFACE, http2.PREFACE + SETTINGS])
def test_requests_without_headers_are_not_cancelled(unread: bytes) -> None:
    requests = HeldRequests()
    assert not requests.update(unread, 1.0)
    assert requests.last_since(9.0) is None
