from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tproxy.protocols import http2
from tproxy.protocols.refusal_response import GRPC_MARKS, RefusalResponse, http1_response


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_response_http1_request_in_pieces_is_the_same(step: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    response = RefusalResponse("why", 5)
    sent = b"".join(response.receive(request[at : at + step]) for at in range(0, len(request), step))
    assert sent == http1_response("why", 5)
    assert response.done


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.booleans())
def test_response_http2_request_in_pieces_is_the_same(steps: list[int], huffman: bool) -> None:
    block = hpack.Encoder().encode([(":method", "GET"), ("content-type", "application/grpc")], huffman=huffman)
    request = http2.PREFACE + http2.frame(4, 0, 0) + http2.frame(6, 0, 0, b"12345678")
    request += http2.frame(1, 0, 1, block[:5]) + http2.frame(9, 4, 1, block[5:]) + http2.frame(0, 1, 1, b"body")
    whole = RefusalResponse("why", 5)
    expected = whole.receive(request)
    assert whole.done
    assert b"grpc-message" in expected
    assert http2.frame(6, 1, 0, b"12345678") in expected
    response, sent, at = RefusalResponse("why", 5), b"", 0
    while at < len(request):
        sent += response.receive(request[at : at + (step := steps[at % len(steps)])])
        at += step
    assert sent == expected


@pytest.mark.parametrize("kind", ["short", "long", "invalid"])
def test_response_http2_head_has_no_body_unless_unknown(kind: str) -> None:
    encoder, request = hpack.Encoder(), http2.PREFACE + http2.frame(4, 0, 0)
    cookie = ("cookie", "c" * 9000 if kind == "long" else "c")
    for stream, method in ((1, "GET"), (3, "HEAD"), (5, "POST"), (7, "HEAD")):
        block = encoder.encode([(":method", method), (":path", f"/{stream}"), cookie])
        if stream == 1 and kind == "invalid":
            block = b"\xff" * 8
        padded = bytes([3]) + b"\0\0\0\0\1" + block + bytes(3)
        request += http2.frame(1, 0x4 | 0x8 | 0x20, stream, padded)
        request += http2.frame(1, 0x5, stream, encoder.encode([("x-sum", str(stream))]))  # trailers
    sent = RefusalResponse("why", 5, 7).receive(request)
    answers = [(found[2], found[0], found[1] & 1) for found in http2.frames(sent, 0) if found[2]]
    without_body = (3, 7) if kind == "short" else ()
    assert answers == [
        answer
        for stream in (1, 3, 5, 7)
        for answer in ([(stream, 1, 1)] if stream in without_body else [(stream, 1, 0), (stream, 0, 1)])
    ]


def test_grpc_mark_equals_the_huffman_code_of_clients() -> None:
    block = hpack.Encoder().encode([("content-type", "application/grpc")], huffman=True)
    assert block.endswith(GRPC_MARKS[1])


def test_response_invalid_http2_frame_ends_with_goaway() -> None:
    assert RefusalResponse("why", 5).receive(http2.PREFACE + b"\xff" * 9).endswith((6).to_bytes(4))
