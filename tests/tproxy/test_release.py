"""Release: a client and its service notice nothing but the delay."""

from __future__ import annotations

import select
import socket
import threading
import time

from tests.ports import free_port
from tests.tproxy.harness import World, eventually, go, read_all, read_exactly
from tproxy.wire import Go, Hold


def test_release_bytes_sent_while_held_are_delivered(world: World) -> None:
    sent = bytes(range(256)) * 400
    world.assign()
    client = world.client()
    client.sendall(sent)
    assert world.sees(held=1, released=0).peer == "{}:{}".format(*client.getsockname())
    upstream = world.upstream()
    world.assign(go(upstream))
    server = world.accept(upstream)
    assert read_exactly(server, len(sent)) == sent
    server.sendall(sent[::-1])
    assert read_exactly(client, len(sent)) == sent[::-1]
    world.sees(held=0, relayed=1, released=1)
    count = eventually(lambda: c if (c := world.sees(released=1)).first_byte_at else None, "the first byte is reported")
    assert count.held_since is not None
    assert count.first_byte_at is not None
    assert count.held_since <= count.first_byte_at <= time.time()
    client.close()
    server.close()
    world.sees(held=0, relayed=0, released=1)


def test_release_server_may_speak_first(world: World) -> None:
    world.assign()
    client = world.client()
    world.sees(held=1)
    upstream = world.upstream()
    world.assign(go(upstream))
    world.accept(upstream).sendall(b"220 ready\r\n")
    assert client.recv(100) == b"220 ready\r\n"


def test_release_half_closed_tcp_client_gets_its_response(world: World) -> None:
    world.assign()
    client = world.client()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    world.sees(held=1)
    upstream = world.upstream()
    world.assign(go(upstream))
    server = world.accept(upstream)
    assert read_all(server) == b"question"
    server.sendall(b"answer")
    server.close()
    assert read_all(client) == b"answer"


def test_connection_to_an_awake_service_is_relayed_at_once(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream))
    client = world.client()
    world.accept(upstream).sendall(b"at once")
    assert client.recv(100) == b"at once"


def test_refused_dials_are_retried_until_one_succeeds(world: World) -> None:
    port = free_port()
    world.assign(Go((f"127.0.0.1:{port}",)))
    client = world.client()
    client.sendall(b"x")
    world.sees(held=1, released=0)
    with socket.create_server(("127.0.0.1", port)) as upstream:
        upstream.settimeout(60)
        server = world.accept(upstream)
        assert server.recv(1) == b"x"
    world.sees(held=0, released=1)


def test_endpoints_are_balanced_and_dead_ones_skipped(world: World) -> None:
    upstreams = [world.upstream(), world.upstream()]
    dead = f"127.0.0.1:{free_port()}"
    world.assign(Go((dead, *go(*upstreams).endpoints)))
    clients = world.clients(30)
    world.sees(held=0, released=30)
    accepted = []
    for upstream in upstreams:
        upstream.settimeout(0)
        accepted.append(len([world.accept(upstream) for _ in range(30) if _has_one(upstream)]))
    assert sum(accepted) == len(clients) == 30
    assert min(accepted) >= 8


def _has_one(server: socket.socket) -> bool:
    return bool(select.select([server], [], [], 0)[0])


def test_ipv6_endpoint_is_dialled(world: World) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as upstream:
        upstream.settimeout(60)
        world.assign(Go((f"[::1]:{upstream.getsockname()[1]}",)))
        client = world.client()
        world.accept(upstream).sendall(b"six")
        assert client.recv(10) == b"six"


def test_hold_again_while_dials_are_refused_keeps_holding(world: World) -> None:
    dead = f"127.0.0.1:{free_port()}"
    world.assign(Go((dead,)))
    client = world.client()
    world.sees(held=1)
    world.assign(Hold())
    upstream = world.upstream()
    world.assign(go(upstream))
    world.accept(upstream).sendall(b"late")
    assert client.recv(10) == b"late"


def test_hold_again_leaves_relayed_connections(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream))
    first = world.client()
    server = world.accept(upstream)
    world.assign(Hold())
    second = world.client()
    world.sees(held=1, relayed=1)
    server.sendall(b"still")
    assert first.recv(10) == b"still"
    second.close()


def test_hold_addresses_lead_to_their_services(world: World) -> None:
    upstream = world.upstream()
    other = f"127.64.0.8:{world.holder.port}"
    world.reconciler.is_acked(
        world.reconciler.say(world.assignment(go(upstream)), world.assignment(address=other, service="db"))
    )
    world.assign(go(upstream))
    held = world.client("127.64.0.8")
    held.sendall(b"db")
    world.reconciler.sees(other, held=1)
    client = world.client()
    client.sendall(b"web")
    assert world.accept(upstream).recv(10) == b"web"
    world.reconciler.sees(other, held=1, released=0)


def test_release_two_thousand_connections_are_all_answered(world: World) -> None:
    world.assign(max_held=5000)
    clients = world.clients(2000)
    for number, client in enumerate(clients):
        client.sendall(number.to_bytes(4))
    world.sees(held=2000)
    upstream = world.upstream()

    def serve() -> None:
        for _ in range(2000):
            accepted, _ = upstream.accept()
            with accepted:
                accepted.sendall(read_exactly(accepted, 4))

    thread = threading.Thread(target=serve)
    thread.start()
    world.assign(go(upstream), max_held=5000)
    for number, client in enumerate(clients):
        assert read_all(client) == number.to_bytes(4)
        client.close()
    thread.join()
    world.sees(held=0, relayed=0, released=2000)


def test_release_short_accept_queue_is_not_overrun(world: World) -> None:
    world.assign()
    clients = world.clients(300)
    world.sees(held=300)
    upstream = world.upstream(backlog=5)

    def serve() -> None:
        for _ in range(300):
            accepted, _ = upstream.accept()
            with accepted:
                time.sleep(0.001)  # the work that it has with each
                accepted.sendall(b"done")

    thread = threading.Thread(target=serve)
    thread.start()
    world.assign(go(upstream))
    for client in clients:
        assert read_all(client) == b"done"
    thread.join()


def test_idle_and_holding_holders_use_no_cpu(world: World) -> None:
    world.assign()
    clients = world.clients(50)
    for client in clients[:25]:
        client.sendall(b"unread")
        client.shutdown(socket.SHUT_WR)
    world.sees(held=50)
    world.holder.is_idle(0.2)


def test_held_connection_uses_little_memory(world: World) -> None:
    world.assign(max_held=10_000)
    world.clients(200)
    world.sees(held=200)
    before = world.holder.memory
    world.clients(3000)
    world.sees(held=3200)
    assert (world.holder.memory - before) / 3000 < 2048
