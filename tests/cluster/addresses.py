"""Addresses of this machine for the pods of tests: the API server takes no loopback addresses for endpoints."""

from __future__ import annotations

import random
import subprocess

_NETWORKS = [f"198.18.{number}" for number in range(1, 255)]


class Addresses:
    """Addresses in a network that no other test uses until `close`, on the loopback device."""

    def __init__(self) -> None:
        self._added: list[str] = []
        # The kernel adds an address once: who has the first one of a network has all of it.
        for network in random.SystemRandom().sample(_NETWORKS, len(_NETWORKS)):
            done = _ip("add", f"{network}.1")
            if done.returncode == 0:
                self._network = network
                self._added.append(f"{network}.1")
                return
        raise RuntimeError(f"no network is left for a test: {done.stderr}")

    def add(self) -> str:
        """Return another address."""
        address = f"{self._network}.{len(self._added) + 1}"
        done = _ip("add", address)
        assert done.returncode == 0, done.stderr
        self._added.append(address)
        return address

    def close(self) -> None:
        """Remove all addresses, the one that stands for the network last."""
        while self._added:
            _ip("delete", self._added.pop())


def _ip(verb: str, address: str) -> subprocess.CompletedProcess[str]:
    command = ["ip", "address", verb, f"{address}/32", "dev", "lo"]
    return subprocess.run(command, capture_output=True, text=True, check=False)
