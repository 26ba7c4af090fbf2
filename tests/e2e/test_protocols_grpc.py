"""gRPC is answered in full on a wake, in all four kinds of call, and refused as gRPC clients understand."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, server

TIMEOUT_SECONDS = 30.0


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
        defaults=SLOW_TO_SLEEP,
    )


def channel(z: Zenvoy, name: str) -> grpc.Channel:
    options = [("grpc.default_authority", name), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(f"{LOCAL}:{z.http_port}", options)


def test_unary(z: Zenvoy) -> None:
    big = bytes(range(256)) * 4000
    with channel(z, "unary") as channel_:
        call = channel_.unary_unary("/test.Echo/Unary")
        z.asleep("unary")
        assert call(b"hello", timeout=TIMEOUT_SECONDS) == b"hello"
        z.woken("unary")
        z.sleep("unary")
        z.asleep("unary")
        assert call(big, timeout=TIMEOUT_SECONDS) == big, "over the same channel"
    assert z.wakes("unary") == 2


def test_streams_of_either_side(z: Zenvoy) -> None:
    with channel(z, "streams") as channel_:
        z.asleep("streams")
        down = channel_.unary_stream("/test.Echo/Down")(b"hello", timeout=TIMEOUT_SECONDS)
        assert list(down) == [b"h", b"e", b"l", b"l", b"o"]
        z.sleep("streams")
        z.asleep("streams")
        up = channel_.stream_unary("/test.Echo/Up")
        assert up(iter([b"a", b"b", b"c"]), timeout=TIMEOUT_SECONDS) == b"a,b,c"
    assert z.wakes("streams") == 2


def test_stream_both_ways_answers_before_it_is_over_and_is_not_cut(z: Zenvoy) -> None:
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


def test_service_that_cannot_start_is_unavailable_and_says_why(z: Zenvoy) -> None:
    with channel(z, "broken") as channel_, pytest.raises(grpc.RpcError) as raised:
        channel_.unary_unary("/test.Echo/Unary")(b"hello", timeout=TIMEOUT_SECONDS)
    error = raised.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "broken did not wake" in error.details()
    assert "exited with code 7" in error.details()
    assert "cannot use port" in error.details()
    trailing = dict(error.trailing_metadata() or ())
    assert int(trailing["retry-after"]) >= 1
