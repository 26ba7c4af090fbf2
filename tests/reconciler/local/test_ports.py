"""Ports that programs receive: free ones that no outgoing connection takes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from reconciler.local import sockets as ports


def test_free_port_is_below_the_ephemeral_range() -> None:
    first = int(ports.EPHEMERAL_RANGE.read_text().split()[0])
    assert all(ports.FIRST_PORT <= ports.free_port() < first for _ in range(50))


def test_free_port_excludes_used_and_excluded_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        used = listening.getsockname()[1]
        monkeypatch.setattr(ports, "FIRST_PORT", used)
        monkeypatch.setattr(ports, "EPHEMERAL_RANGE", tmp_path / "range")
        (tmp_path / "range").write_text(f"{used + 3}\t60999\n")
        assert ports.free_port({used + 1}) != used
        assert ports.free_port({used + 1}) != used + 1


@pytest.mark.parametrize("text", ["1024\t65535\n", "", "?"])
def test_free_port_without_ports_below_is_given_by_the_kernel(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports, "EPHEMERAL_RANGE", tmp_path / "range")
    (tmp_path / "range").write_text(text)
    with socket.socket() as probe:
        probe.bind(("", ports.free_port()))
