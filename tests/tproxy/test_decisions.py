"""What the holder decides without doing any I/O: pace, bounds, answers, spelling."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tproxy import address
from tproxy.control.stream import LAST_BACKOFF_SECONDS, MOST_QUEUED, _Attempt, backoff_seconds
from tproxy.dial.pace import GAP_SECONDS, GRID_SECONDS, MAX_IN_FLIGHT, SLOWEST_SECONDS, Pace
from tproxy.hold_queue import Held, Park, explanation
from tproxy.io.descriptors import Budget
from tproxy.io.refuser import Answer, http1
from tproxy.protocols import http2
from tproxy.protocols.held_requests import Calls
from tproxy.wire import Assignment, Go, Hold, Refuse, Up, Verdict


def assignment(verdict: Verdict, max_held: int = 2, reason: str | None = None) -> Assignment:
    return Assignment("127.64.0.7:1", "web", "http", verdict, max_held, 3.0, reason)


def park(verdict: Verdict | None = None, **rest: int) -> Park:
    def nobody(held: Held, events: int) -> None:
        raise AssertionError

    return Park("127.64.0.7:1", socket.AF_INET, nobody, assignment(verdict, **rest) if verdict else None)


# Pace.


def test_the_grid_starts_fine_and_widens_with_the_wait() -> None:
    pace = Pace()
    assert pace.refused(100.0, endpoints=1, probing=1) == GRID_SECONDS
    assert pace.refused(101.0, endpoints=1, probing=1) == pytest.approx(0.0025)
    assert pace.refused(200.0, endpoints=1, probing=1) == SLOWEST_SECONDS
    pace.succeeded(0.001)
    assert pace.refused(300.0, endpoints=1, probing=1) == GRID_SECONDS


def test_another_endpoint_is_tried_at_once_and_the_grid_waits_for_all_of_them() -> None:
    pace = Pace()
    assert [pace.refused(1.0, endpoints=3, probing=1) for _ in range(6)] == [0, 0, GRID_SECONDS] * 2


def test_many_services_that_are_probed_share_one_grid() -> None:
    assert Pace().refused(1.0, endpoints=1, probing=50) == pytest.approx(0.010)


def test_a_dial_without_an_answer_halves_the_burst_and_doubles_the_patience() -> None:
    pace = Pace()
    for _ in range(100):
        pace.succeeded(0.0001)
    assert (pace.window, pace.gap_seconds) == (MAX_IN_FLIGHT, 0)
    patience = pace.patience
    pace.unanswered()
    assert (pace.window, pace.gap_seconds, pace.patience) == (MAX_IN_FLIGHT / 2, GAP_SECONDS, 2 * patience)
    for _ in range(20):
        pace.unanswered()
    assert pace.window == 1


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_reconnecting_backs_off_within_bounds(failures: int, chance: float) -> None:
    assert 0 < backoff_seconds(failures, chance) <= LAST_BACKOFF_SECONDS
    assert backoff_seconds(0, chance) <= 0.05


# Park.


def test_a_stream_that_nobody_reads_is_given_up_and_holds_no_more_than_so_many_messages() -> None:
    overflown: list[bool] = []
    attempt = _Attempt(lambda: overflown.append(True))
    for _ in range(MOST_QUEUED + 3):
        attempt.send(Up())
    attempt.end()
    assert len(overflown) == 3
    assert sum(1 for _ in attempt) == MOST_QUEUED


def test_bounds_and_verdicts() -> None:
    assert park(Hold()).refusal() is None
    assert park(Go(("127.0.0.1:1",))).refusal() is None
    assert park(Refuse("no")).refusal() == "refused"
    assert park(Hold(), max_held=0).refusal() == "max_held"
    assert park().refusal() is None


@given(st.lists(st.integers(0, 400), max_size=400))
def test_who_leaves_from_anywhere_leaves_the_rest_in_order(leaving: list[int]) -> None:
    there = park(Hold())
    there.held_since, there.peer = 0.0, "somebody"
    helds = [Held(index + 3, there, float(index)) for index in range(401)]
    there.waiting.extend(helds)
    there.held = len(helds)
    left = set()
    for index in leaving:
        if index not in left:
            left.add(index)
            assert there.leave(helds[index]) == index + 3
    rest = [held for index, held in enumerate(helds) if index not in left]
    assert there.held == len(rest)
    assert [held for held in there.waiting if held.fd >= 0] == rest
    assert there.oldest() is (rest[0] if rest else None)
    assert len(there.waiting) <= 2 * there.held + 65


def test_every_refusal_names_the_service_and_the_reason() -> None:
    stalled = Park("127.64.0.7:1", socket.AF_INET, park().stirred, assignment(Hold(), reason="exit code 1"))
    for cause in ("max_held", "descriptors", "timeout", "refused", "draining"):
        said = explanation(stalled, cause, 1.5)  # type: ignore[arg-type]
        assert said.startswith("web ")
        assert said.endswith(": exit code 1")


def test_the_budget_keeps_room_for_dials() -> None:
    budget = Budget(limit=1000)
    budget.used = 1000 - budget.headroom
    assert budget.admits()
    budget.used += 1
    assert not budget.admits()
    assert budget.allows() == budget.headroom - 1


# Answers.


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_answer_does_not_depend_on_how_the_request_arrives(step: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = Answer("why", 5)
    assert b"".join(answer.receive(request[at : at + step]) for at in range(0, len(request), step)) == http1("why", 5)
    assert answer.done


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_an_h2_answer_does_not_depend_on_how_the_request_arrives(steps: list[int]) -> None:
    block = http2.header_block([(":method", "GET"), ("content-type", "application/grpc")])
    request = http2.PREFACE + http2.frame(4, 0, 0) + http2.frame(6, 0, 0, b"12345678")
    request += http2.frame(1, 0, 1, block[:5]) + http2.frame(9, 4, 1, block[5:]) + http2.frame(0, 1, 1, b"body")
    whole = Answer("why", 5)
    wanted = whole.receive(request)
    assert whole.done
    assert b"grpc-message" in wanted
    assert http2.frame(6, 1, 0, b"12345678") in wanted
    answer, sent, at = Answer("why", 5), b"", 0
    while at < len(request):
        sent += answer.receive(request[at : at + (step := steps[at % len(steps)])])
        at += step
    assert sent == wanted


def test_the_huffman_mark_is_what_grpc_clients_send() -> None:
    # RFC 7541, appendix B, for "application/grpc", as nghttp2 and grpc encode it.
    assert http2.GRPC_MARKS[1] == bytes.fromhex("1d75d0620d263d4c4d6564")


def test_what_is_no_http2_frame_ends_the_conversation() -> None:
    assert Answer("why", 5).receive(http2.PREFACE + b"\xff" * 9).endswith((6).to_bytes(4))


# Calls.


def test_calls_are_told_wherever_the_bytes_are_cut() -> None:
    request = http2.frame(http2.HEADERS, 0x4, 1, b"\x82") + http2.frame(0, 0, 1, bytes(40))
    later = http2.frame(http2.HEADERS, 0x4, 3, b"\x82") + http2.frame(http2.RST_STREAM, 0, 1, bytes(4))
    trailers = http2.frame(http2.HEADERS, 0x5, 3, b"\x82")
    said = http2.PREFACE + http2.frame(4, 0, 0) + request + later + trailers
    calls = Calls()
    assert not any(calls.look(said[:end], float(end)) for end in range(len(said) + 1))
    assert calls.last == 3
    assert calls.waiting_since(float(len(said))) == 3
    assert calls.waiting_since(60.0) == 0, "the first was given up"
    assert calls.look(said + http2.frame(http2.RST_STREAM, 0, 3, bytes(4)), 999.0)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", http2.PREFACE, http2.PREFACE + http2.frame(4, 0, 0)])
def test_without_a_request_nobody_gave_up(said: bytes) -> None:
    calls = Calls()
    assert not calls.look(said, 1.0)
    assert calls.waiting_since(9.0) is None


# Addresses.


def test_addresses_have_one_spelling() -> None:
    assert address.join("127.64.0.7", 80) == "127.64.0.7:80"
    assert address.join("::ffff:127.64.0.7", 80) == "127.64.0.7:80"
    assert address.join("fe80::1%eth0", 80) == "[fe80::1]:80"
    assert address.canonical("[2001:DB8:0::7]:80") == "[2001:db8::7]:80"
    assert address.sockaddr("[::1]:80") == (socket.AF_INET6, ("::1", 80))
    for wrong in ("127.0.0.1", "::1:80", "localhost:80", "127.0.0.1:70000"):
        with pytest.raises(ValueError, match="address"):
            address.sockaddr(wrong)
