"""Ports for the programs that tests start."""

from __future__ import annotations

import os
import random
import socket

FIRST, LAST = 10_240, 19_999
"""Below the ephemeral range, so that no outgoing connection takes a port between its choice and its use; and below the
ports that `zenvoy up` gives to programs."""
WORKERS = 8
"""Parallel test processes with ports of their own. Envoy shares a port with another Envoy without an error."""
_random = random.SystemRandom()
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free at this address now, and that no other test of this run is given."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = _own_range()
    while True:
        port = _random.choice(ports)
        if port in _given:
            continue
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _given.add(port)
        return port


def _own_range() -> range:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    size = (LAST + 1 - FIRST) // WORKERS
    return range(FIRST + worker * size, FIRST + (worker + 1) * size)
