"""Refusals, as clients see them, and clients that disconnect, as the holder sees them."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import grpc
import pytest

from tests.ports import free_port
from tests.tproxy.harness import (
    HOST,
    FakeReconciler,
    HolderProcess,
    World,
    eventually,
    go,
    is_reset,
    read_all,
    read_exactly,
    reset,
)
from tproxy.protocols import http2

WAITED = r"web did not start within \d+\.\d s \(holdTimeout\)"
"""The time is 0.1 s on an idle machine."""
CURLE_HTTP2 = 16
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
HTTP2 = pytest.mark.parametrize("protocol", ["h2c", "auto"])


def curl(*args: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-sS", "-i", "--max-time", "60", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=70)


def curl_h2c(*args: str) -> str:
    """Return the response. Repeat a request that GOAWAY allows to repeat, as clients other than curl do themselves.

    The holder allows that if the request came too long after its connection, as on a busy machine.
    """
    command = ["curl", "-sS", "-i", "--max-time", "60", "--http2-prior-knowledge", *args]
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=70)
        if done.returncode != CURLE_HTTP2:
            assert done.returncode == 0, done.stderr
            return done.stdout


@pytest.mark.curl
def test_timeout_http_client_gets_503_with_the_reason(world: World) -> None:
    world.assign(protocol="http", hold_timeout=0.1, reason="exit code 3: no such file")
    said = curl(f"http://{world.holder.address}/").stdout
    head, _, body = said.partition("\n\n")
    assert head.startswith("HTTP/1.1 503 Service Unavailable\n")
    assert "\nRetry-After: 5\n" in head
    assert "\nContent-Type: text/plain; charset=utf-8\n" in head
    assert re.fullmatch(rf"{WAITED}: exit code 3: no such file\n", body)
    assert f"\nContent-Length: {len(body)}\n" in head
    assert world.sees(refused=1).held == 0


@pytest.mark.curl
def test_refusal_of_head_has_no_body(world: World) -> None:
    world.assign(protocol="http", max_held=0)
    assert curl("--head", f"http://{world.holder.address}/").stdout.rstrip().endswith("Connection: close")


@HTTP2
@pytest.mark.parametrize("upload", [False, True], ids=["get", "upload"])
@pytest.mark.curl
def test_timeout_h2c_client_gets_503_with_the_reason(world: World, protocol: str, tmp_path: Path, upload: bool) -> None:
    world.assign(protocol=protocol, hold_timeout=0.1, reason="no image")
    body = tmp_path / "upload"
    body.write_bytes(bytes(1 << 20))
    args = ["--data-binary", f"@{body}"] if upload else []
    said = curl_h2c(*args, f"http://{world.holder.address}/")
    assert said.startswith("HTTP/2 503")
    assert "retry-after: 5" in said
    assert re.search(rf"\n{WAITED}: no image\n$", said)


@HTTP2
def test_timeout_grpc_client_gets_the_reason(world: World, protocol: str) -> None:
    world.assign(protocol=protocol, hold_timeout=0.1, reason="100 % full: \u00e9t\u00e9")
    with grpc.insecure_channel(world.holder.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/shop.Web/Get")(b"x", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert re.fullmatch(rf"{WAITED}: 100 % full: \u00e9t\u00e9", caught.value.details())


def frames(data: bytes) -> list[tuple[int, int]]:
    """Return kind and stream of each frame."""
    found, at = [], 0
    while at < len(data):
        found.append((data[at + 3], int.from_bytes(data[at + 5 : at + 9])))
        at += 9 + int.from_bytes(data[at : at + 3])
    return found


def asks(*streams: int) -> bytes:
    return b"".join(http2.frame(http2.HEADERS, 0x4, stream, b"\x82") for stream in streams)


def gives_up(*streams: int) -> bytes:
    return b"".join(http2.frame(http2.RST_STREAM, 0, stream, (8).to_bytes(4)) for stream in streams)


@HTTP2
def test_h2c_connection_with_only_cancelled_requests_is_gone(world: World, protocol: str) -> None:
    world.assign(protocol=protocol)
    client = world.client()
    client.sendall(http2.PREFACE + http2.frame(4, 0, 0) + asks(1, 3) + gives_up(1))
    world.sees(held=1)
    client.sendall(asks(5) + gives_up(3))
    client.sendall(gives_up(5)[:7])
    client.sendall(gives_up(5)[7:])
    assert frames(read_all(client))[-1] == (7, 0)
    world.sees(held=0, gone=1, refused=0)


@HTTP2
def test_h2c_bytes_that_were_peeked_at_are_delivered(world: World, protocol: str) -> None:
    world.assign(protocol=protocol)
    client, upstream = world.client(), world.upstream()
    sent = http2.PREFACE + http2.frame(4, 0, 0) + asks(1, 3) + gives_up(1) + http2.frame(0, 1, 3, bytes(9_000))
    client.sendall(sent)
    world.sees(held=1)
    world.assign(go(upstream), protocol=protocol)
    assert read_exactly(world.accept(upstream), len(sent)) == sent


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_timeout_tcp_client_is_reset(world: World, protocol: str) -> None:
    world.assign(protocol=protocol, hold_timeout=0.1)
    assert world.is_refused(b"unread")
    world.sees(refused=1, held=0)


def test_hold_timeout_changed_applies_to_held_connections(world: World) -> None:
    world.assign(hold_timeout=60)
    clients = world.clients(3)
    world.sees(held=3)
    world.assign(hold_timeout=0.05)
    assert all(is_reset(client) for client in clients)
    world.sees(refused=3, held=0)


@pytest.mark.curl
def test_connection_beyond_max_held_is_refused_at_once(world: World) -> None:
    world.assign(protocol="http", max_held=2)
    world.clients(2)
    world.sees(held=2)
    said = curl(f"http://{world.holder.address}/").stdout
    assert "2 connections are already held (maxHeld)" in said
    assert world.sees(refused=1).held == 2


@pytest.mark.curl
def test_refusal_at_max_held_one_uses_the_singular(world: World) -> None:
    world.assign(protocol="http", max_held=1)
    world.clients(1)
    world.sees(held=1)
    assert "1 connection is already held (maxHeld)" in curl(f"http://{world.holder.address}/").stdout


def test_refusals_are_counted_by_reason(world: World) -> None:
    world.assign(protocol="tcp", max_held=1)
    held = world.client()
    world.sees(held=1)
    assert world.is_refused() and world.is_refused()
    world.sees(held=1, refused=2)
    world.assign(protocol="tcp", max_held=1, hold_timeout=0.1)
    assert is_reset(held)
    assert world.sees(refused=3).refused_by == {"max_held": 2, "timeout": 1}


def test_removed_service_refuses_held_clients_with_reason(world: World) -> None:
    world.assign(protocol="http")
    client = world.client()
    client.sendall(GET)
    world.sees(held=1)
    world.reconciler.say(remove=(world.holder.address,))
    assert b"web is no longer served" in read_all(client)


def test_removed_address_refuses_held_and_keeps_relayed(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream))
    relayed = world.client()
    server = world.accept(upstream)
    world.assign()
    held = world.client()
    world.sees(held=1, relayed=1)
    world.reconciler.is_acked(world.reconciler.say(remove=(world.holder.address,)))
    assert is_reset(held)
    assert world.is_refused()
    server.sendall(b"goes on")
    assert relayed.recv(10) == b"goes on"


def test_unassigned_address_holds_until_first_assignments(world: World) -> None:
    port = free_port()
    world.reconciler.stop()
    world.use(world.enter_context(HolderProcess(port)))
    known, unknown = world.client(), world.client("127.64.0.9")
    upstream = world.upstream()
    world.reconciler = world.enter_context(FakeReconciler(port, [world.assignment(go(upstream))]))
    assert is_reset(unknown)
    world.accept(upstream).sendall(b"known")
    assert known.recv(10) == b"known"
    assert world.is_refused(host="127.64.0.9")


def test_address_of_another_service_refuses_held_clients(world: World) -> None:
    world.assign(protocol="tcp")
    waiting = world.client()
    world.sees(held=1)
    server = world.upstream()
    world.assign(go(server), protocol="tcp", service="other")
    assert is_reset(waiting)
    assert world.sees(held=0, refused=1).refused_by == {"removed": 1}
    later = world.client()
    world.accept(server).sendall(b"other")
    assert later.recv(100) == b"other"


def test_full_message_replaces_all_assignments(world: World) -> None:
    other = f"127.64.0.8:{world.holder.port}"
    world.assign()
    world.reconciler.is_acked(world.reconciler.say(world.assignment(address=other, service="db"), full=True))
    assert world.is_refused()
    world.client("127.64.0.8")
    world.reconciler.sees(other, held=1)


def test_tcp_client_that_resets_is_gone(world: World) -> None:
    world.assign()
    client = world.client()
    client.sendall(b"x")
    world.sees(held=1)
    reset(client)
    world.sees(held=0, gone=1)


def test_http_client_that_closes_is_gone_and_not_replayed(world: World) -> None:
    world.assign(protocol="http")
    client, stays = world.client(), world.client()
    client.sendall(GET)
    stays.sendall(GET)
    world.sees(held=2)
    client.close()
    world.sees(held=1, gone=1)
    upstream = world.upstream()
    world.assign(go(upstream), protocol="http")
    world.accept(upstream)
    world.sees(held=0, released=1)
    upstream.settimeout(0.1)
    with pytest.raises(TimeoutError):
        upstream.accept()
    stays.close()


def test_clients_that_leave_the_middle_leave_nothing(world: World) -> None:
    world.assign(protocol="http")
    clients = world.clients(300)
    world.sees(held=300)
    for client in clients[1:]:
        client.close()
    world.sees(held=1, gone=299)
    clients[0].sendall(GET)
    upstream = world.upstream()
    world.assign(go(upstream), protocol="http")
    world.accept(upstream).sendall(b"you")
    assert clients[0].recv(3) == b"you"


def _attempt(world: World, number: int, host: str = HOST) -> list[socket.socket]:
    """Return new clients, except those that were reset before connect() returned."""
    clients = []
    for _ in range(number):
        with contextlib.suppress(ConnectionResetError):
            clients.append(world.client(host))
    return clients


def metrics(world: World, port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def test_descriptor_limit_refuses_new_and_releases_held(world: World) -> None:
    port = free_port()
    world.start("--metrics", f"127.0.0.1:{port}", nofile=128)
    world.assign(max_held=1000)
    clients = _attempt(world, 150)
    count = eventually(lambda: (c := world.sees()).held + c.refused == 150 and c, "all are held or refused")
    assert count.refused > 50
    assert f'zenvoy_holder_refused_total{{reason="descriptors",service="web"}} {float(count.refused)}' in metrics(
        world, port
    )
    assert world.holder.descriptors < 128
    upstream = world.upstream()
    world.assign(go(upstream), max_held=1000)

    def serve() -> None:
        for _ in range(count.held):
            accepted, _ = upstream.accept()  # each that ends makes room for the next
            accepted.sendall(b"x")  # a connection without an answer would be dialed again
            accepted.close()

    thread = threading.Thread(target=serve)
    thread.start()
    for client in clients:
        with contextlib.suppress(ConnectionResetError):
            read_all(client)
        client.close()
    thread.join()
    world.sees(held=0, released=count.held)


def test_no_descriptor_left_sheds_without_spinning(world: World) -> None:
    world.start()
    world.assign(protocol="http")
    first = world.client()
    world.sees(held=1)
    pid = world.holder.process.pid
    limit = 1 + max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    clients = _attempt(world, 60)
    assert world.sees().held < 30
    world.holder.is_idle(0.3)
    for client in (first, *clients):
        client.close()
    world.sees(held=0)
    world.client()
    world.sees(held=1)
