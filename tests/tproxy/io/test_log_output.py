"""Log output to descriptors that block or fail, with real pipes and /dev/full."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from tproxy.io import log_output
from tproxy.io.log_output import MAX_BYTES, TOO_SLOW, LogOutput

PATIENCE_SECONDS = 60.0


class Reports:
    """A logger of reports of lost texts, and an event for the first one."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str]] = []
        self.first = threading.Event()

    def warning(self, _event: str, *, count: int, reason: str) -> None:
        self.all.append((count, reason))
        self.first.set()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    reports = Reports()
    monkeypatch.setattr(log_output, "log", reports)
    return reports


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_write_blocked_pipe_drops_beyond_the_limit(pipe: tuple[int, int], reports: Reports) -> None:
    reading, writing = pipe
    line = "x" * 999 + "\n"
    output = LogOutput(writing, str.encode)
    written = MAX_BYTES // len(line)
    for _ in range(written + 500):
        output.write(line)
    output.drain(0)
    received = 0
    while not reports.first.is_set():
        received += len(os.read(reading, 1 << 16))
    [(lost, why)] = reports.all
    assert why == TOO_SLOW
    assert 0 < lost <= 500
    left = (written + 500 - lost) * len(line) - received
    while left > 0:
        left -= len(os.read(reading, left))


def test_write_full_disk_reports_once_after_recovery(pipe: tuple[int, int], reports: Reports) -> None:
    reading, writing = pipe
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        output = LogOutput(descriptor, str.encode)
        for number in range(3):
            output.write(f"lost {number}\n")
        output.drain(PATIENCE_SECONDS)
        os.dup2(writing, descriptor)
        output.write("kept\n")
        assert reports.first.wait(PATIENCE_SECONDS)
        output.write("also kept\n")
        output.drain(PATIENCE_SECONDS)
    finally:
        os.close(descriptor)
    assert os.read(reading, 1000) == b"kept\nalso kept\n"
    assert reports.all == [(3, "No space left on device")]


def test_write_without_reader_does_not_raise(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    output = LogOutput(writing, str.encode)
    for _ in range(3):
        output.write("this is never read\n")
    output.drain(PATIENCE_SECONDS)


def test_write_nonblocking_descriptor_waits_for_room(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    output = LogOutput(writing, str.encode)
    text = "y" * 300_000
    output.write(text)
    received = b""
    while len(received) < len(text):
        received += os.read(reading, 1 << 16)
    assert received == text.encode()
