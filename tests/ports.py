"""Ports for the programs that tests start."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import time
from functools import cache

FIRST, LAST = 10_300, 19_999
"""Below the ephemeral range, so that no outgoing connection takes a port between its choice and its use; below the
ports that `zenvoy up` gives to programs; and above those of the node's programs, such as kube-scheduler's 10259."""
RANGES = 12
"""Test processes that have ports of their own, in all runs on this machine. Envoy shares a port with another Envoy
without an error."""
PATIENCE_SECONDS = 1800.0
"""Longest time to wait until another test process ends."""
_random = random.SystemRandom()
_given: dict[int, None] = {}
"""The ports that were given last, in this order. Those before have ended with their tests."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free at this address now, and that no other recent test of this run is given."""
    return free_ports(1, host)


def free_ports(count: int, host: str = "127.0.0.1") -> int:
    """Return the first of so many free ports in a row; see `free_port`."""
    ports = reserved()
    while True:
        first = _random.choice(ports[: 1 - count or None])
        wanted = range(first, first + count)
        if not _given.keys() & set(wanted) and all(_is_free(host, port) for port in wanted):
            _given.update(dict.fromkeys(wanted))
            while len(_given) > len(ports) // 2:
                del _given[next(iter(_given))]
            return first


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@cache
def reserved() -> range:
    """Return a range of ports that no other test process uses until this one ends; wait if none is left."""
    size = (LAST + 1 - FIRST) // RANGES
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        for number in range(RANGES):
            if _locks(number):
                return range(FIRST + number * size, FIRST + (number + 1) * size)
        time.sleep(1)
    raise RuntimeError(f"{RANGES} test processes run on this machine; none ended in {PATIENCE_SECONDS:g} s")


def _locks(number: int) -> bool:
    """Return whether this process has the range now. Its lock file stays open until the process ends."""
    lock = os.open(f"{tempfile.gettempdir()}/zenvoy-test-ports-{number}", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True
