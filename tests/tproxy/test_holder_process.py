"""The holder process from start to end, with a reconciler that connects and disconnects in any order."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed_plain

from tests.ports import free_port
from tests.tproxy.harness import (
    PATIENCE_SECONDS,
    FakeReconciler,
    HolderProcess,
    World,
    eventually,
    go,
    is_reset,
    read_all,
)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tproxy", *args], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


# The reconciler comes and goes.


def test_holder_without_reconciler_continues_and_reports_all(world: World) -> None:
    upstream = world.upstream()
    other = f"127.64.0.8:{world.holder.port}"
    world.assign(address=other, service="db")
    world.assign(go(upstream))
    relayed = world.client()
    server = world.accept(upstream)
    world.sees(relayed=1)
    world.reconciler.stop()
    held = world.client("127.64.0.8")
    new = world.client()
    world.accept(upstream).sendall(b"new")
    assert new.recv(3) == b"new"
    server.sendall(b"old")
    assert relayed.recv(3) == b"old"

    before = world.reconciler
    address = world.holder.address
    known = world.assignment(), world.assignment(address=other, service="db")
    world.reconciler = world.enter_context(FakeReconciler(before.port, known))
    eventually(lambda: world.reconciler.ups)
    first = world.reconciler.ups[0]
    assert first.hello is not None
    assert first.hello == before.ups[0].hello
    assert {count.address: (count.held, count.relayed, count.released) for count in first.counts} == {
        other: (1, 0, 0),
        address: (0, 2, 2),
    }
    world.reconciler.say(world.assignment(), world.assignment(go(upstream), address=other, service="db"), full=True)
    world.accept(upstream).sendall(b"db")
    assert held.recv(2) == b"db"


def test_killed_reconciler_is_noticed_and_replaced(world: World) -> None:
    port = free_port()
    script = (
        "import sys, time; from tests.tproxy.harness import FakeReconciler; from tproxy.wire import *\n"
        "fake = FakeReconciler(int(sys.argv[1]))\n"
        "fake.say(Assignment(sys.argv[2], 'web', 'tcp', Hold(), 10, 60.0))\n"
        "print(flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    hold_port = free_port()
    address = f"127.64.0.7:{hold_port}"
    with subprocess.Popen([sys.executable, "-c", script, str(port), address], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            world.reconciler.stop()
            holder = world.enter_context(HolderProcess(port, "--listen", f"0.0.0.0:{hold_port}"))
            world.use(holder)
            eventually(lambda: "reconciler connected" in holder.log)
            client = world.client()
        finally:
            process.kill()
    eventually(lambda: "reconciler disconnected" in holder.log)
    upstream = world.upstream()
    world.reconciler = world.enter_context(FakeReconciler(port, [world.assignment(go(upstream))]))
    world.accept(upstream).sendall(b"x")
    assert client.recv(1) == b"x"


def test_unreachable_reconciler_is_noticed(world: World) -> None:
    """The kernel still acknowledges TCP for a stopped process: only the ping is not answered."""
    port = free_port()
    script = (
        "import sys, time; from tests.tproxy.harness import FakeReconciler\n"
        "fake = FakeReconciler(int(sys.argv[1]))\n"
        "print(flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    world.reconciler.stop()
    with subprocess.Popen([sys.executable, "-c", script, str(port)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            holder = world.enter_context(HolderProcess(port, "--keepalive", "1"))
            eventually(lambda: "reconciler connected" in holder.log)
            process.send_signal(signal.SIGSTOP)
            eventually(lambda: "reconciler disconnected" in holder.log)
        finally:
            process.kill()


def test_restarted_holder_receives_all_assignments(world: World) -> None:
    upstream = world.upstream()
    first = world.holder
    world.assign(go(upstream))
    first.end()
    world.reconciler.ups.clear()
    world.start("--listen", f"0.0.0.0:{first.port}")
    world.client()
    world.accept(upstream)


def test_inherited_socket_keeps_connections_of_a_killed_holder(world: World) -> None:
    """Connections wait in the kernel until the next holder accepts them."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        handed_down = ("--listen", f"fd:{listening.fileno()}")
        world.start(*handed_down, pass_fds=(listening.fileno(),))
        upstream = world.upstream()
        world.assign(go(upstream))
        world.holder.end()
        early = world.client()
        world.reconciler.ups.clear()
        world.start(*handed_down, pass_fds=(listening.fileno(),))
        world.accept(upstream).sendall(b"x")
        assert early.recv(1) == b"x"


# How it ends.


def test_drain_lets_connections_finish(world: World) -> None:
    world.start("--drain-timeout", "3600")
    upstream = world.upstream()
    world.assign(go(upstream))
    relayed = world.client()
    server = world.accept(upstream)
    world.assign()
    held = world.client()
    world.sees(held=1, relayed=1)
    world.holder.signal(signal.SIGTERM)
    eventually(lambda: "draining" in world.holder.log)
    with pytest.raises(ConnectionRefusedError):
        world.client()
    world.assign(go(upstream))
    late = world.accept(upstream)
    for client, end in ((relayed, server), (held, late)):
        end.sendall(b"goodbye")
        end.close()
        assert read_all(client) == b"goodbye"
        client.close()
    assert world.holder.wait() == 0


def test_drain_timeout_refuses_and_cuts(world: World) -> None:
    world.start("--drain-timeout", "0.3")
    world.assign(protocol="http", reason="no image")
    held = world.client()
    held.sendall(b"GET / HTTP/1.1\r\n\r\n")
    world.sees(held=1)
    world.holder.signal(signal.SIGTERM)
    said = read_all(held)
    held.close()
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"when the holder shut down: no image" in said
    assert world.holder.wait() == 5


def test_second_signal_ends_the_process_at_once(world: World) -> None:
    world.start("--drain-timeout", "3600")
    world.assign()
    client = world.client()
    client.sendall(b"x")
    world.sees(held=1)
    world.holder.signal(signal.SIGTERM)
    eventually(lambda: "draining" in world.holder.log)
    world.holder.signal(signal.SIGINT)
    assert world.holder.wait() == 5
    assert is_reset(client)


def test_signal_to_an_unused_holder_ends_it_at_once(world: World) -> None:
    world.start("--drain-timeout", "3600")
    world.assign()
    world.holder.signal(signal.SIGTERM)
    assert world.holder.wait() == 0


def _converse(world: World, upstream: socket.socket) -> None:
    with world.client() as client:
        client.sendall(b"?")
        server = world.accept(upstream)
        assert server.recv(1) == b"?"
        server.sendall(b"x")
        assert client.recv(1) == b"x"
        server.close()


def test_ended_connections_free_their_descriptors(world: World) -> None:
    port = free_port()
    world.start("--metrics", f"127.0.0.1:{port}")
    upstream = world.upstream()
    world.assign(go(upstream), protocol="http")

    def counted() -> str:
        _, text = get(f"http://127.0.0.1:{port}/metrics")
        return next(line for line in text.splitlines() if line.startswith("zenvoy_holder_descriptors "))

    _converse(world, upstream)
    world.sees(held=0, relayed=0, released=1)
    before, counted_before = world.holder.descriptors, counted()
    for _ in range(50):
        _converse(world, upstream)
        world.client().close()
    world.sees(held=0, relayed=0, released=51, gone=50)
    eventually(lambda: world.holder.descriptors <= before)
    eventually(lambda: counted() == counted_before, counted_before)


# What it says about itself.


def test_metrics_and_health_reflect_the_holder(world: World) -> None:
    port = free_port()
    world.start("--metrics", f"127.0.0.1:{port}")
    world.assign(protocol="http")
    base = f"http://127.0.0.1:{port}"
    assert get(f"{base}/healthz")[0] == 200
    assert get(f"{base}/readyz") == (200, "ok\n")
    assert get(f"{base}/")[0] == 404
    client, gone = world.client(), world.client()
    gone.close()
    world.sees(held=1, gone=1)
    upstream = world.upstream()
    world.assign(go(upstream), protocol="http")
    client.sendall(b"12345")
    server = world.accept(upstream)
    server.sendall(b"123")
    assert client.recv(3) == b"123"
    # The client has its bytes a moment before they are counted.
    counted = 'zenvoy_holder_relayed_bytes_total{direction="down",service="web"} 3.0'
    eventually(lambda: counted in get(f"{base}/metrics")[1].splitlines(), counted)
    _, text = get(f"{base}/metrics")
    for line in (
        'zenvoy_holder_held{service="web"} 0.0',
        'zenvoy_holder_relayed{service="web"} 1.0',
        'zenvoy_holder_released_total{service="web"} 1.0',
        'zenvoy_holder_gone_total{service="web"} 1.0',
        counted,
        "zenvoy_holder_stream_up 1.0",
    ):
        assert line in text.splitlines()


def test_metrics_accept_header_selects_the_format(world: World) -> None:
    port = free_port()
    world.start("--metrics", f"127.0.0.1:{port}")
    world.assign()
    world.client()
    world.sees(held=1)

    for accept, read in (
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", parsed_openmetrics),
        ("text/plain;version=0.0.4", parsed_plain),
        ("*/*", parsed_plain),
    ):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            kind, text = answer.headers["Content-Type"].partition(";")[0], answer.read().decode()
        assert kind == (accept.partition(";")[0] if accept != "*/*" else "text/plain")
        families = {family.name: family for family in read(text)}
        assert [sample.value for sample in families["zenvoy_holder_held"].samples if sample.labels["service"]] == [1]


def test_metrics_relayed_for_removed_service_have_no_label(world: World) -> None:
    port = free_port()
    world.start("--metrics", f"127.0.0.1:{port}")
    upstream = world.upstream()
    world.assign(go(upstream))
    client, server = world.client(), world.accept(upstream)
    world.sees(relayed=1)
    other = f"127.64.0.8:{world.holder.port}"
    world.assign(go(upstream), address=other, service="db")
    world.client("127.64.0.8")
    world.accept(upstream)
    eventually(lambda: (count := world.reconciler.count(other)) and count.relayed == 1)

    world.reconciler.is_acked(world.reconciler.say(remove=(world.holder.address, other)))

    def series() -> dict[str, str]:
        _, text = get(f"http://127.0.0.1:{port}/metrics")
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if "service=" in line)

    assert series() == {'zenvoy_holder_held{service=""}': "0.0", 'zenvoy_holder_relayed{service=""}': "2.0"}
    client.close()
    server.close()
    eventually(lambda: series()['zenvoy_holder_relayed{service=""}'] == "1.0")


def test_metrics_held_at_unassigned_address_have_no_label() -> None:
    port, stream = free_port(), free_port()
    with HolderProcess(stream, "--metrics", f"127.0.0.1:{port}") as holder:

        def lines() -> list[str]:
            return get(f"http://127.0.0.1:{port}/metrics")[1].splitlines()

        with holder.connect() as client:
            eventually(lambda: 'zenvoy_holder_held{service=""} 1.0' in lines())
            with FakeReconciler(stream):
                assert is_reset(client)
                eventually(lambda: 'zenvoy_holder_refused_total{reason="unassigned",service=""} 1.0' in lines())
        assert 'zenvoy_holder_held{service=""} 0.0' in lines()


def test_readyz_before_the_first_assignments_is_503() -> None:
    port = free_port()
    with HolderProcess(free_port(), "--metrics", f"127.0.0.1:{port}"):
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
        assert get(f"http://127.0.0.1:{port}/readyz")[0] == 503


def test_log_json_is_one_object_per_line(world: World) -> None:
    eventually(lambda: "listening" in world.holder.log)
    lines = [json.loads(line) for line in world.holder.log.splitlines()]
    listening = next(line for line in lines if line["event"] == "listening")
    assert listening["address"] == f"0.0.0.0:{world.holder.port}"


# The command line.


def test_listen_port_in_use_names_the_process() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("run", "--reconciler", "127.0.0.1:1", "--listen", f"0.0.0.0:{port}")
    assert done.returncode == 3
    assert f"the port is in use by process {os.getpid()} (" in done.stderr
    assert "choose another --listen" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--reconciler", "nowhere"], "is not an address with a port"),
        (["--reconciler", "a:1", "--listen", "::1:80"], "IPv6 address in brackets"),
        (["--reconciler", "a:1", "--ports", "9-1"], "is not a port range"),
        ([], "--reconciler"),
    ],
)
def test_run_invalid_option_names_the_problem(args: list[str], said: str) -> None:
    done = command("run", *args)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_run_options_from_environment_are_used() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tproxy", "run"],
        env={**os.environ, "ZENVOY_TPROXY_RECONCILER": "127.0.0.1:1", "ZENVOY_TPROXY_LISTEN": "192.0.2.1:1234"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 3
    assert "this machine does not have the address; use 0.0.0.0:1234" in done.stderr


@pytest.mark.root
def test_mode_tproxy_without_capability_names_the_remedy() -> None:
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    run = [sys.executable, "-m", "tproxy", "run", "--mode", "tproxy", "--reconciler", "127.0.0.1:1"]
    done = subprocess.run(
        [*prefix, *run, "--listen", "[::]:0"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
