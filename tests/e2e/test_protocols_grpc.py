"""gRPC is answered in full on a wake, in all four kinds of call, and refused as gRPC clients understand.

With `protocol: auto` that holds beside HTTP/1.1 on the same port.
"""

from __future__ import annotations

import queue
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import grpc
import pytest
from websockets.sync.client import connect

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, gated, request, server, until

TIMEOUT_SECONDS = 60.0


def rpc(name: str, **fields: object) -> dict[str, object]:
    return {"name": name, "protocol": "h2c", "command": server("rpc"), **fields}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    broken = ["sh", "-c", "echo cannot use port {port}; exit 7"]
    return shared_zenvoy(
        rpc("unary"),
        rpc("streams"),
        rpc("both", idleAfter="1s"),
        rpc("broken", command=broken, holdTimeout="1s"),
        rpc("late", command=server("rpc", "late"), holdTimeout="8s"),
        {"name": "both-versions", "protocol": "auto", "command": server("both")},
        {"name": "no-version", "protocol": "auto", "command": broken, "holdTimeout": "1s"},
        rpc("given-up", command=gated(server("rpc"), "given-up")),
        defaults=SLOW_TO_SLEEP,
    )


def channel(z: Zenvoy, name: str) -> grpc.Channel:
    options = [("grpc.default_authority", name), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(f"{LOCAL}:{z.http_port}", options)


def test_grpc_unary_call_wakes(z: Zenvoy) -> None:
    big = bytes(range(256)) * 4000
    with channel(z, "unary") as channel_:
        call = channel_.unary_unary("/test.Echo/Unary")
        z.asleep("unary")
        assert call(b"hello", timeout=TIMEOUT_SECONDS) == b"hello"
        peer = z.woken("unary")["lastWake"]["peer"]
        assert str(ip_address(peer)) == peer, "the client itself, and not Envoy, which would have a port"
        z.sleep("unary")
        z.asleep("unary")
        assert call(big, timeout=TIMEOUT_SECONDS) == big, "over the same channel"
    assert z.wakes("unary") == 2


def test_grpc_streams_of_either_side_wake(z: Zenvoy) -> None:
    with channel(z, "streams") as channel_:
        z.asleep("streams")
        down = channel_.unary_stream("/test.Echo/Down")(b"hello", timeout=TIMEOUT_SECONDS)
        assert list(down) == [b"h", b"e", b"l", b"l", b"o"]
        z.sleep("streams")
        z.asleep("streams")
        up = channel_.stream_unary("/test.Echo/Up")
        assert up(iter([b"a", b"b", b"c"]), timeout=TIMEOUT_SECONDS) == b"a,b,c"
    assert z.wakes("streams") == 2


def test_grpc_bidirectional_stream_is_not_cut(z: Zenvoy) -> None:
    requests: queue.Queue[bytes | None] = queue.Queue()

    def sent() -> Iterator[bytes]:
        while (one := requests.get()) is not None:
            yield one

    with channel(z, "both") as channel_:
        z.asleep("both")
        answers = channel_.stream_stream("/test.Echo/Both")(sent(), timeout=2 * TIMEOUT_SECONDS)
        for count in range(5):
            requests.put(b"message %d" % count)
            assert next(answers) == b"message %d" % count
        z.woken("both")
        z.stays_awake("both", 3)
        requests.put(b"after a silence")
        assert next(answers) == b"after a silence"
        requests.put(None)
        assert list(answers) == []
    z.wait_state("both", "ScaledToZero")
    assert z.wakes("both") == 1


def test_auto_grpc_websocket_and_pages_wake_one_program(z: Zenvoy) -> None:
    name = "both-versions"

    def call() -> bytes:
        with channel(z, name) as channel_:
            return channel_.unary_unary("/test.Echo/Unary")(b"hello", timeout=TIMEOUT_SECONDS)

    def chat() -> bytes:
        plain = socket.create_connection((LOCAL, z.http_port))
        with connect(f"ws://{name}/", sock=plain, ping_interval=None, open_timeout=TIMEOUT_SECONDS) as opened:
            opened.send("hello")
            return str(opened.recv(timeout=TIMEOUT_SECONDS)).encode()

    def page() -> bytes:
        return request(z.http_port, name).body

    expected = {call: b"hello", chat: b"hello", page: b"a page\n"}
    for first in expected:
        z.asleep(name)
        assert first() == expected[first], "it wakes the program"
        assert {ask: ask() for ask in expected} == expected, "awake"
        z.sleep(name)
    z.asleep(name)
    with ThreadPoolExecutor() as pool:
        asked = {ask: pool.submit(ask) for ask in expected}
        assert {ask: future.result() for ask, future in asked.items()} == expected, "all are held at once"
    assert z.wakes(name) == 4


def test_auto_refusal_is_in_the_version_of_the_client(z: Zenvoy) -> None:
    reply = request(z.http_port, "no-version")
    assert reply.status == 503 and b"no-version did not start" in reply.body
    with channel(z, "no-version") as channel_, pytest.raises(grpc.RpcError) as raised:
        channel_.unary_unary("/test.Echo/Unary")(b"hello", timeout=TIMEOUT_SECONDS)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no-version did not start" in raised.value.details()


def test_grpc_refusal_is_unavailable_with_reason(z: Zenvoy) -> None:
    z.wake_until("its program has exited", "broken", lambda view: "exited with code 7" in (view["stalled"] or ""))
    with channel(z, "broken") as channel_, pytest.raises(grpc.RpcError) as raised:
        channel_.unary_unary("/test.Echo/Unary")(b"hello", timeout=TIMEOUT_SECONDS)
    error = raised.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "broken did not start" in error.details()
    assert "holdTimeout): Exited (reference " in error.details()
    assert "cannot use port" not in error.details()
    trailing = dict(error.trailing_metadata() or ())
    assert int(trailing["retry-after"]) >= 1


def test_grpc_later_call_has_its_own_hold_timeout(z: Zenvoy) -> None:
    """Envoy has both wait on one held connection, whose time is the first one's."""
    with channel(z, "late") as channel_:
        call = channel_.unary_unary("/test.Echo/Unary")
        z.asleep("late")
        first = call.future(b"first", timeout=TIMEOUT_SECONDS)
        since = time.time()
        z.wait_status("the first is held", "late", lambda view: view["held"] == 1)
        until("part of its time is over", lambda: time.time() > since + 1.5)
        second = call.future(b"second", timeout=TIMEOUT_SECONDS)
        with pytest.raises(grpc.RpcError) as raised:
            first.result()
        assert re.search(r"late did not start within \d+\.\d s ", raised.value.details())
        z.wait_status("the second is held", "late", lambda view: view["held"] == 1)
        assert not second.done()
        z.open_gate("late")
        assert second.result() == b"second"
    assert z.status("late")["refused"] == 1


def test_grpc_cancelled_calls_are_not_held(z: Zenvoy) -> None:
    with channel(z, "given-up") as channel_:
        call = channel_.unary_unary("/test.Echo/Unary")
        z.asleep("given-up")
        calls = [call.future(b"hello", timeout=TIMEOUT_SECONDS) for _ in range(3)]
        z.wait_status("they are held", "given-up", lambda view: view["held"] == 1)
        for one in calls[1:]:
            one.cancel()
        last = call.future(b"last", timeout=TIMEOUT_SECONDS)
        calls[0].cancel()
        last.cancel()
        z.wait_status("no client is held", "given-up", lambda view: view["held"] == 0)
        patient = call.future(b"patient", timeout=TIMEOUT_SECONDS)
        z.wait_status("a client is held", "given-up", lambda view: view["held"] == 1)
        z.open_gate("given-up")
        assert patient.result() == b"patient"
    assert z.status("given-up")["refused"] == 0
