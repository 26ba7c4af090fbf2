from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tproxy.protocols.messages import LOCAL, SIGNATURE, header
from tproxy.protocols.client_address import NONE, ProxyHeader, read_header


@settings(deadline=None)
@given(st.ip_addresses().map(str), st.integers(0, 65_535), st.binary(max_size=80), st.binary(max_size=80))
def test_read_header_any_address_returns_client_and_size(client: str, port: int, more: bytes, data: bytes) -> None:
    whole = header(client, port, more)
    found = read_header(whole + data)
    assert found is not None
    assert found.size == len(whole)
    host, _, said = (found.client or "").rpartition(":")
    address = ip_address(host.strip("[]"))
    assert address == getattr(ip_address(client), "ipv4_mapped", None) or address == ip_address(client)
    assert int(said) == port
    assert all(read_header(whole[:length]) is None for length in range(len(whole)))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (LOCAL + b"data", ProxyHeader(16)),
        (SIGNATURE + b"\x21\x31\x00\x02ab", ProxyHeader(18)),
        (SIGNATURE + b"\x21\x11\x00\x04abcd", ProxyHeader(20)),
        (SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), NONE),
        (b"\r\n\r\n\0\r\nQUIT!", NONE),
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", NONE),
        (b"?", NONE),
    ],
    ids=["local", "unix socket", "too short for addresses", "another version", "no signature", "version 1", "short"],
)
def test_read_header_without_addresses_names_no_client(seen: bytes, expected: ProxyHeader) -> None:
    assert read_header(seen) == expected
