"""Plain TCP, or TLS with a certificate. Arguments: PORT MODE [PEM].

echo      sends back what it is sent, at once, after its process id in a line
greet     speaks first: a line, before it reads anything; then echoes
reverse   reads to the end of the client's side, then sends all of it in reverse, and ends
late      resets the first ten connections after 50 ms each, like a sidecar; then answers one HTTP request
"""

from __future__ import annotations

import itertools
import os
import socket
import socketserver
import ssl
import sys
import time

MODE = sys.argv[2]
RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"
CONNECTIONS = itertools.count(1)


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        connection = self.request
        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()
        if MODE == "reverse":
            received = bytearray()
            while data := connection.recv(65_536):
                received += data
            connection.sendall(received[::-1])
            return
        if MODE == "late" and next(CONNECTIONS) <= 10:
            time.sleep(0.05)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            connection.close()
            return
        if MODE == "late":
            body = connection.recv(65_536).split()[0]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        first = f"process {os.getpid()}" if MODE == "echo" else f"220 {os.environ['ZENVOY_SERVICE']} is ready"
        connection.sendall(f"{first}\r\n".encode())
        while data := connection.recv(65_536):
            connection.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
