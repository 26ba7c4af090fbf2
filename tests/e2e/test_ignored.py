"""Probes and scrapes neither wake a service nor keep it awake, and are answered."""

from __future__ import annotations

import socket
from http.client import HTTPConnection

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, quick, request, until
from tests.ports import free_port

ELSEWHERE = "127.0.0.77"
"""Another address of this machine, for clients that are recognized by their address."""
PROBES = [
    {"paths": ["/healthz", "/metrics/*"], "answer": {"status": 203, "body": "asleep\n"}},
    {"userAgents": ["kube-probe/", "*UptimeRobot"], "paths": ["/ready"]},
    {"sources": [f"{ELSEWHERE}/32"], "answer": {"status": 202}},
    {"paths": ["/status?auto", "/check?*"], "answer": {"status": 204, "body": "a 204 has no body"}},
]


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    only_elsewhere = [{"sources": [ELSEWHERE]}]
    untrusted = {"protocol": "http", "listen": f"{LOCAL}:{free_port()}", "http": {"trustedHops": 0}}
    return shared_zenvoy(
        {"name": "web", "command": quick("http"), "ignore": PROBES},
        {"name": "busy", "command": quick("http"), "ignore": PROBES, "idleAfter": "1s"},
        {"name": "edge", "command": quick("http"), "ignore": PROBES},
        {"name": "direct", "command": quick("http"), "ignore": PROBES, **untrusted},
        {"name": "db", "protocol": "tcp", "command": quick("tcp"), "ignore": only_elsewhere},
        defaults=SLOW_TO_SLEEP,
    )


def ask(
    z: Zenvoy, name: str, path: str, agent: str = "curl/8", source: str = LOCAL, forwarded: str = "", port: int = 0
) -> tuple[int, str]:
    connection = HTTPConnection(LOCAL, port or z.http_port, timeout=60, source_address=(source, 0))
    headers = {"Host": name, "User-Agent": agent, **({"X-Forwarded-For": forwarded} if forwarded else {})}
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_ignore_asleep_answers_without_a_wake(z: Zenvoy) -> None:
    z.asleep("web")
    assert ask(z, "web", "/healthz") == (203, "asleep\n")
    assert ask(z, "web", "/metrics/cpu?x=1") == (203, "asleep\n")
    assert ask(z, "web", "/ready", agent="kube-probe/1.34") == (200, "")
    assert ask(z, "web", "/ready", agent="Mozilla/5.0+(compatible; UptimeRobot/2.0; +http://x)") == (200, "")
    assert ask(z, "web", "/anything", source=ELSEWHERE) == (202, "")
    assert ask(z, "web", "/status?auto") == ask(z, "web", "/check?a=1&b=2") == (204, "")
    view = z.status("web")
    assert (view["state"], view["requests"], view["held"]) == ("ScaledToZero", 0, 0)
    assert ask(z, "web", "/status?auto=1") == (200, "web /status?auto=1\n"), "another query wakes it"
    assert ask(z, "web", "/ready") == (200, "web /ready\n"), "another user agent is not ignored"
    assert z.wakes("web") == 1


def test_ignore_source_behind_a_trusted_proxy_is_its_client(z: Zenvoy) -> None:
    z.asleep("edge")
    assert ask(z, "edge", "/", forwarded=f"192.0.2.9, {ELSEWHERE}") == (202, "")
    assert ask(z, "edge", "/", forwarded=f"{ELSEWHERE}, 192.0.2.9") == (200, "edge /\n"), (
        "a client can forge the first one"
    )
    assert z.wakes("edge") == 1
    z.asleep("direct")
    assert ask(z, "direct", "/", forwarded=ELSEWHERE, port=z.port("direct")) == (200, "direct /\n"), (
        "no proxy is trusted"
    )


def test_ignore_awake_requests_reach_the_service(z: Zenvoy) -> None:
    z.wake("web")
    z.wait_straight("web")
    assert ask(z, "web", "/healthz") == (200, "web /healthz\n")
    assert ask(z, "web", "/anything", source=ELSEWHERE) == (200, "web /anything\n")


def test_ignore_awake_requests_do_not_keep_it_awake(z: Zenvoy) -> None:
    assert request(z.http_port, "busy").status == 200

    def probed_until_it_sleeps() -> bool:
        assert ask(z, "busy", "/healthz")[0] in (200, 203)
        return z.state("busy") == "ScaledToZero"

    until("it sleeps under its probes", probed_until_it_sleeps)
    assert z.wakes("busy") == 1


def test_ignore_tcp_source_is_known(z: Zenvoy) -> None:
    z.asleep("db")
    with socket.create_connection((LOCAL, z.port("db")), 60, (ELSEWHERE, 0)) as probe:
        assert probe.recv(10) == b"", "closed, and no service woke"
    assert z.state("db") == "ScaledToZero"
    assert said_to_db(z, LOCAL) == b"db hello\n"
    until("Envoy lets everybody in", lambda: said_to_db(z, ELSEWHERE) == b"db hello\n")


def said_to_db(z: Zenvoy, source: str) -> bytes:
    with socket.create_connection((LOCAL, z.port("db")), 60, (source, 0)) as client:
        try:
            client.sendall(b"hello\n")
            return client.recv(100)
        except ConnectionError:
            return b""
