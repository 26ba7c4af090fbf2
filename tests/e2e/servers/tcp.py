"""Plain TCP, or TLS with a certificate. Arguments: PORT MODE [PEM].

echo      sends back what it is sent, at once, after its process id in a line
greet     speaks first: a line, before it reads anything; then echoes
reverse   reads to the end of the client's side, then sends all of it in reverse, and ends
"""

from __future__ import annotations

import os
import socketserver
import ssl
import sys

MODE = sys.argv[2]


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
