from __future__ import annotations

import concurrent.futures
import os
import random
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tproxy.relay.rig import MIB, PATIENCE_SECONDS, Rig, last_attempt, new_rig, read, read_all, sending, tcp_pair


def chunks_of(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return chunks


SIZES = st.lists(st.one_of(st.integers(1, 1000), st.integers(60_000, 70_000), st.integers(1, 3 * MIB)), max_size=12)


@settings(max_examples=25, deadline=None)
@given(up=SIZES, down=SIZES)
def test_relay_any_chunks_delivers_every_byte(up: list[int], down: list[int]) -> None:
    up_data, down_data = os.urandom(sum(up)), os.urandom(sum(down))
    with new_rig() as rig:
        client, upstream, relayed = rig.connect()
        with (
            sending(client, *chunks_of(up_data, up), then_end=True),
            sending(upstream, *chunks_of(down_data, down), then_end=True),
            concurrent.futures.ThreadPoolExecutor() as readers,
        ):
            at_client, at_upstream = readers.map(read_all, (client, upstream))
        assert rig.finished() is relayed
        assert (at_upstream, at_client) == (up_data, down_data)
        assert (relayed.bytes_up, relayed.bytes_down) == (len(up_data), len(down_data))


@pytest.mark.parametrize("up", [True, False])
def test_relay_slow_reader_gets_all_and_slows_the_sender(rig: Rig, up: bool) -> None:
    client, upstream, relayed = rig.connect()
    sender, reader = (client, upstream) if up else (upstream, client)
    data = random.Random(1).randbytes(50_000_000)
    with sending(sender, data, then_end=True):
        # No reader: the sender can send only what the kernel's buffers and one pipe take.
        moved = -1
        while moved != (now := relayed.bytes_up + relayed.bytes_down) or not moved:
            moved = now
            rig.call(lambda: None)
        assert moved < 40_000_000
        got = bytearray()
        for size in [1, 1000, 4096] * 300:
            got += read(reader, size)
        got += read_all(reader)
    assert got == data


def test_relay_many_ready_at_once_delivers_all_messages(rig: Rig) -> None:
    both = [rig.connect()[:2] for _ in range(100)]
    done = threading.Event()
    rig.loop.call_soon_threadsafe(lambda: done.wait(PATIENCE_SECONDS))
    for number, (client, upstream) in enumerate(both):
        client.sendall(b"up %d" % number)
        upstream.sendall(b"down %d" % number)
    done.set()
    for number, (client, upstream) in enumerate(both):
        assert upstream.recv(100) == b"up %d" % number
        assert client.recv(100) == b"down %d" % number


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("last", [1, 1000, 100_000])
def test_relay_short_end_of_long_transfer_is_not_delayed(rig: Rig, up: bool, last: int) -> None:
    client, upstream, _ = rig.connect()
    here, there = (client, upstream) if up else (upstream, client)
    for _ in range(3):
        data = random.Random(last).randbytes(40 * MIB)
        with sending(here, data):
            assert read(there, len(data)) == data
        here.sendall(b"x" * last)
        assert read(there, last) == b"x" * last
        there.sendall(b"got it")
        assert read(here, 6) == b"got it"


def test_relay_on_loopback_is_not_paced(rig: Rig) -> None:
    (client, inner_client), (inner_upstream, upstream) = tcp_pair(), tcp_pair()
    rig.ends += [client, upstream]
    with inner_client.dup() as seen_client, inner_upstream.dup() as seen_upstream:
        rig.call(lambda: rig.relay.start(inner_client.detach(), inner_upstream.detach(), rig, last_attempt()))
        for seen in (seen_client, seen_upstream):
            assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"


def test_relay_counts_bytes_and_reports_first_byte(rig: Rig) -> None:
    client, upstream, relayed = rig.connect()
    client.sendall(b"question")
    assert read(upstream, 8) == b"question"
    assert rig.call(lambda: rig.first_bytes) == 0
    upstream.sendall(b"answer")
    assert read(client, 6) == b"answer"
    assert rig.call(lambda: rig.first_bytes) == 1
    upstream.sendall(b"more")
    assert read(client, 4) == b"more"
    assert rig.call(lambda: (relayed.bytes_up, relayed.bytes_down, rig.first_bytes)) == (8, 10, 1)


def test_relay_bulk_and_small_messages_alternate(rig: Rig) -> None:
    """The last bytes of a burst, and the small messages after it, are delivered without waiting for more."""
    client, upstream, _ = rig.connect()
    rng = random.Random(2)
    for _ in range(10):
        burst = rng.randbytes(rng.randrange(4 * MIB, 8 * MIB))
        with sending(client, burst):
            assert read(upstream, len(burst)) == burst
        for size in (1, 17, 256, 5000):
            message = rng.randbytes(size)
            for source, sink in ((client, upstream), (upstream, client)):
                source.sendall(message)
                assert read(sink, size) == message
