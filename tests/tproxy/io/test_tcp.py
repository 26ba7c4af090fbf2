from __future__ import annotations

import socket

import pytest

from tproxy.io.tcp import is_untouched


@pytest.mark.parametrize(
    ("case", "expected"), [("idle", True), ("unread", True), ("ended", True), ("read", False), ("written", False)]
)
def test_is_untouched_after_bytes_moved_is_false(case: str, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            if case != "idle":
                client.sendall(b"hello")
            if case == "ended":
                client.shutdown(socket.SHUT_WR)
            if case == "read":
                accepted.recv(2)
            if case == "written":
                accepted.sendall(b"x")
            assert is_untouched(accepted.fileno()) is expected
