"""Tests of socket addresses."""

from __future__ import annotations

import pytest

from reconciler.core.address import Address, join_address


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "0.0.0.0:65535", "[2001:db8::1]:1", "[::ffff:1.2.3.4]:9"])
def test_address_parse_inverts_str(text: str) -> None:
    address = Address.parse(text)
    assert Address.parse(str(address)) == address
    assert Address.of(str(address.ip), address.port) == address


def test_address_str_puts_ipv6_in_brackets() -> None:
    assert str(Address.parse("[0:0::1]:80")) == "[::1]:80" == join_address("::1", 80)
    assert str(Address.parse("10.0.0.1:80")) == "10.0.0.1:80" == join_address("10.0.0.1", 80)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        ":80",
        "localhost:80",
        "::1:80",
        "[127.0.0.1]:80",
        "[::1]",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:٣",
        "127.0.0.1:+8",
        "[fe80::1%eth0]:80",
        "127.1:80",
        "127.0.0.1:80 ",
        "[[::1]]:80",
    ],
)
def test_address_parse_rejects_other_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not ip:port; use for example 127\.0\.0\.1:"):
        Address.parse(text)


def test_address_parse_error_keeps_a_valid_port() -> None:
    with pytest.raises(ValueError, match=r"use for example 127\.0\.0\.1:8080 or \[::1\]:8080"):
        Address.parse("localhost:8080")


@pytest.mark.parametrize(("text", "is_loopback"), [("127.9.9.9:1", True), ("[::1]:1", True), ("10.0.0.1:1", False)])
def test_address_is_loopback(text: str, is_loopback: bool) -> None:
    assert Address.parse(text).ip.is_loopback is is_loopback


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("127.0.0.1:80", "[::]:80", True),
        ("[::1]:80", "0.0.0.0:80", False),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", True),
    ],
)
def test_address_overlaps_is_symmetric(one: str, other: str, expected: bool) -> None:
    assert Address.parse(one).overlaps(Address.parse(other)) is expected
    assert Address.parse(other).overlaps(Address.parse(one)) is expected
