from __future__ import annotations

import socket

import pytest

from tproxy import address


def test_join_any_spelling_returns_the_canonical_one() -> None:
    assert address.join("127.64.0.7", 80) == "127.64.0.7:80"
    assert address.join("::ffff:127.64.0.7", 80) == "127.64.0.7:80"
    assert address.join("fe80::1%eth0", 80) == "[fe80::1]:80"
    assert address.canonical("[2001:DB8:0::7]:80") == "[2001:db8::7]:80"


def test_sockaddr_ipv6_returns_family_and_target() -> None:
    assert address.sockaddr("[::1]:80") == (socket.AF_INET6, ("::1", 80))


@pytest.mark.parametrize("text", ["127.0.0.1", "::1:80", "localhost:80", "127.0.0.1:70000"])
def test_sockaddr_invalid_text_raises(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        address.sockaddr(text)
