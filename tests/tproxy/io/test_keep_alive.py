"""Keepalive of TCP sockets."""

from __future__ import annotations

import socket

from tproxy.io import tcp


def options(sock: socket.socket) -> list[int]:
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    return [
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names),
    ]


def test_keep_alive_accepted_connection_has_the_options() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        tcp.keep_alive(listening, 20)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert options(accepted) == [1, 20, 5, 4]


def test_keep_alive_shortest_time_is_a_second() -> None:
    with socket.socket() as sock:
        tcp.keep_alive(sock, 1)
        assert options(sock) == [1, 1, 1, 4]
