"""The proxy that the environment names for a server."""

from __future__ import annotations

import pytest

from reconciler.proxy_environment import proxy_for

PROXY = "http://proxy.example:3128"
SERVER = "https://api.shop.example:6443"


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("https://10.96.0.1:443", "10.96.0.0/12"),
        ("https://10.96.0.1:443", "localhost, 10.96.0.1"),
        ("https://[fd00::1]:6443", "fd00::/8"),
        (SERVER, "*"),
        (SERVER, "shop.example"),
        (SERVER, ".shop.example"),
        (SERVER, "*.shop.example"),
        (SERVER, "API.shop.example"),
        (SERVER, "api.shop.example:6443"),
        ("https://10.96.0.1", "10.96.0.0/12:443"),
        ("https://127.0.0.1:6443", ""),
        ("https://[::1]:6443", ""),
        ("https://localhost:6443", ""),
        ("https://web.shop.svc:8443", ""),
        ("https://web.shop.svc.cluster.local", ""),
    ],
)
def test_proxy_for_excluded_server_is_none(url: str, no_proxy: str) -> None:
    assert proxy_for(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}) is None


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("https://10.112.0.1:443", "10.96.0.0/12"),
        (SERVER, ""),
        (SERVER, "hop.example"),
        (SERVER, "api.shop.example:443"),
        ("https://shop.example", ".shop.example"),
        (SERVER, "10.0.0.0/8,,nonsense/99"),
        ("https://svc.shop.example", ""),
    ],
)
def test_proxy_for_other_server_is_the_proxy(url: str, no_proxy: str) -> None:
    assert proxy_for(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}) == PROXY


def test_proxy_for_follows_scheme_and_spelling() -> None:
    environment = {"http_proxy": "plain.example:80", "https_proxy": PROXY, "no_proxy": "internal.example"}
    assert proxy_for("http://api.example", environment) == "http://plain.example:80"
    assert proxy_for(SERVER, environment) == PROXY
    assert proxy_for("https://api.internal.example", environment) is None
    assert proxy_for(SERVER, {}) is None
