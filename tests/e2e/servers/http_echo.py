"""HTTP/1.1 over the standard library, one thread per connection, so that it starts quickly. Arguments: PORT.

GET /hello      a fixed text            POST /echo     the body again
GET /slow/N     the reply after N s     POST /sha256   length and SHA-256 of the body
GET /until/FILE the reply once that file exists
GET /events/N   N server-sent events, each once the client asked for it by /next
GET /next       let every /events continue by one
GET /bytes/N    N bytes, the same ones each time
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TICK = threading.Semaphore(0)
CHUNK = 65_536


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        what, _, number = self.path.lstrip("/").partition("/")
        match what:
            case "slow":
                time.sleep(float(number))  # stands for work
                self._reply(f"slow {number}\n".encode())
            case "until":
                while not os.path.exists(f"/{number}"):
                    time.sleep(0.01)
                self._reply(b"done\n")
            case "events":
                self._events(int(number))
            case "next":
                TICK.release()
                self._reply(b"")
            case "bytes":
                self._reply((bytes(range(256)) * (int(number) // 256 + 1))[: int(number)])
            case _:
                self._reply(f"hello from {os.environ['ZENVOY_SERVICE']}: {self.path}\n".encode())

    def do_POST(self) -> None:
        if self.path == "/sha256":
            digest, length = hashlib.sha256(), 0
            for chunk in self._body():
                digest.update(chunk)
                length += len(chunk)
            self._reply(f"{length} {digest.hexdigest()}\n".encode())
        else:
            self._reply(b"".join(self._body()))

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            chunk = self.rfile.read(min(left, CHUNK))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk

    def _events(self, number: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for count in range(number):
            self.wfile.write(f"id: {count}\ndata: event {count}\n\n".encode())
            self.wfile.flush()
            TICK.acquire()

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *values: object) -> None:
        print(text % values, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
