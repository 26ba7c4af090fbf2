"""kill -9 of the holder while clients wait: each is answered, and no program gets a request twice."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Reply, Zenvoy, gated, request, server, until

EACH = 24


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2 * EACH) as pool:
        yield pool


@pytest.fixture
def z(zenvoy: Start) -> Zenvoy:
    return zenvoy(
        {"name": "web", "command": gated(server("http_echo"))},
        {"name": "rpc", "protocol": "h2c", "command": gated(server("rpc"))},
        {"name": "db", "protocol": "tcp", "command": gated(server("tcp", "echo"))},
        defaults=SLOW_TO_SLEEP,
    )


def _posts(z: Zenvoy, pool: ThreadPoolExecutor, first: int) -> list[Future[Reply]]:
    """Return requests: half of the bodies are small, half exceed the buffers of a socket."""
    return [
        pool.submit(
            request, z.http_port, "web", f"/echo?{at}", method="POST", body=f"{at};".encode() * (1, 40_000)[at % 2]
        )
        for at in range(first, first + EACH)
    ]


def _calls(channels: list[grpc.Channel], first: int) -> list[grpc.Future]:
    return [
        channel.unary_unary("/test.Echo/Unary").future(b"call %d" % at, timeout=60)
        for at, channel in enumerate(channels, first)
    ]


def _are_calls_held(z: Zenvoy, count: int) -> bool:
    """Return whether Envoy has sent `count` calls, on connections that the holder holds."""
    answer = z.ask("GET", "/v1/services/rpc/explain")
    counters = [envoy["counters"] for envoy in answer["sample"]["envoys"] if "counters" in envoy]
    sent, open_ = sum(one["active_requests"] for one in counters), sum(one["active_connections"] for one in counters)
    return sent == count and open_ == answer["service"]["held"]


def _kill_holder(z: Zenvoy) -> None:
    """Kill the holder and wait for its end: a busy processor may let it finish the accept that it is in."""
    pid = z.kill("holder")
    until("the holder has ended", lambda: not psutil.pid_exists(pid))


def _lines(z: Zenvoy, stack: ExitStack) -> list[socket.socket]:
    made = [stack.enter_context(socket.create_connection((LOCAL, z.port("db")), 30)) for _ in range(EACH)]
    for at, line in enumerate(made):
        line.sendall(b"line %d\n" % at)
    return made


def _read_line(line: socket.socket, stack: ExitStack) -> list[str]:
    file = stack.enter_context(line.makefile("r", encoding="ascii"))
    return [file.readline().partition(" ")[0], file.readline().strip()]


def test_holder_killed_keeps_waiting_clients(z: Zenvoy, pool: ThreadPoolExecutor) -> None:
    with ExitStack() as stack:
        channels = [
            stack.enter_context(
                grpc.insecure_channel(
                    f"{LOCAL}:{z.http_port}", [("grpc.default_authority", "rpc"), ("grpc.use_local_subchannel_pool", 1)]
                )
            )
            for _ in range(EACH)
        ]
        posts, calls, lines = _posts(z, pool, 0), _calls(channels, 0), _lines(z, stack)
        z.wait_status("all of web wait", "web", lambda view: view["held"] == EACH)
        z.wait_status("all of db wait", "db", lambda view: view["held"] == EACH)
        until("all of rpc wait", lambda: _are_calls_held(z, EACH))  # one that is being accepted is lost
        _kill_holder(z)
        posts += _posts(z, pool, EACH)  # newcomers, while there is no holder
        calls += _calls(channels, EACH)
        lines += _lines(z, stack)
        z.wait_status("all wait again", "web", lambda view: view["held"] == 2 * EACH)
        z.wait_status("all wait again", "db", lambda view: view["held"] == 2 * EACH)
        until("all wait again", lambda: _are_calls_held(z, 2 * EACH))
        _kill_holder(z)
        z.open_gate()
        for at, post in enumerate(posts):
            reply = post.result()
            assert (reply.status, reply.body) == (200, f"{at};".encode() * (1, 40_000)[at % 2])
        assert [call.result() for call in calls] == [b"call %d" % at for at in range(2 * EACH)]
        assert [_read_line(line, stack) for line in lines] == [
            ["process", f"line {at % EACH}"] for at in range(2 * EACH)
        ]
    asked = re.findall(r"POST (\S+)", z.output("web"))
    assert sorted(asked) == sorted(f"/echo?{at}" for at in range(2 * EACH)), "each POST came once"
    called = re.findall(r"call \d+", z.output("rpc"))
    assert sorted(called) == sorted(f"call {at}" for at in range(2 * EACH)), "each call came once"
    for name in ("web", "rpc", "db"):
        assert z.status(name)["refused"] == 0


def test_holder_killed_delivered_request_is_not_repeated(z: Zenvoy, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    """Through a holder that is killed after the release, it is lost: it may have had its effect."""
    z.open_gate()
    slow = pool.submit(request, z.http_port, "web", f"/until{tmp_path}/answer")
    z.wait_status("it is relayed", "web", lambda view: view["relayed"] == 1)
    z.kill("holder")
    assert slow.result().status == 503
    z.wait_line("it is done", lambda entry: entry["event"] == "holder ended and is started again")
    assert request(z.http_port, "web", "/hello").status == 200
    (tmp_path / "answer").touch()
    until("the program answers it", lambda: "/answer" in z.output("web"))
    assert request(z.http_port, "web", "/hello").status == 200
    assert z.output("web").count("/answer") == 1
